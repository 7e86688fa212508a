module github.com/coroner-dev/coroner/bench

go 1.26.0

replace github.com/coroner-dev/coroner => ..

require (
	github.com/coroner-dev/coroner v0.0.0-00010101000000-000000000000
	github.com/euank/go-kmsg-parser v2.0.0+incompatible
	github.com/google/cadvisor v0.60.6
	golang.org/x/sys v0.49.0
	k8s.io/klog/v2 v2.140.0
)

require (
	github.com/go-logr/logr v1.4.4 // indirect
	google.golang.org/grpc v1.84.0 // indirect
	google.golang.org/protobuf v1.36.12 // indirect
)
