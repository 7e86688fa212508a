{{- define "coroner.name" -}}
{{- if .Values.fullnameOverride }}{{ .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains "coroner" .Release.Name }}{{ .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}{{ printf "%s-coroner" .Release.Name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- /* The command line finds agents by the first of these. */ -}}
{{- define "coroner.selector" -}}
app.kubernetes.io/name: coroner
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "coroner.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "coroner.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "coroner.account" -}}
{{- if .Values.serviceAccount.create }}{{ .Values.serviceAccount.name | default (include "coroner.name" .) }}
{{- else }}{{ .Values.serviceAccount.name | default "default" }}
{{- end }}
{{- end }}

{{- define "coroner.image" -}}
{{- if .Values.image.digest }}{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else }}{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}

{{- define "coroner.args" -}}
- agent
- --node.name=$(NODE_NAME)
- "--web.listen-address=:{{ .Values.web.port }}"
- "--history.path={{ if .Values.history.hostPath }}/var/lib/coroner/deaths.db{{ else }}:memory:{{ end }}"
{{- with .Values.history.retention }}
- "--history.retention={{ . }}"
{{- end }}
{{- with .Values.history.maxSize }}
- "--history.max-size={{ . }}"
{{- end }}
{{- range $name := list "tracepoint" "cgroup" "kube" "kmsg" }}
{{- if not (index $.Values.sources $name) }}
- --no-source.{{ $name }}
{{- end }}
{{- end }}
- --no-source.docker
- --no-source.containerd
{{- if .Values.sources.criSocket }}
- "--source.cri.endpoint=unix://{{ .Values.sources.criSocket }}"
{{- else }}
- --no-source.cri
{{- end }}
{{- if not (and .Values.events .Values.sources.kube) }}
- --no-sink.kubeevents
{{- end }}
{{- if .Values.sources.kube }}
- --source.kube.node-address=$(NODE_IP)
{{- end }}
{{- with .Values.kubelet.url }}
- "--source.kube.kubelet={{ . }}"
{{- end }}
{{- if .Values.kubelet.caFile }}
- --source.kube.kubelet-ca=/etc/coroner/kubelet-ca.crt
{{- end }}
{{- if .Values.web.configSecret }}
- --web.config.file=/etc/coroner/web/web-config.yml
{{- end }}
{{- range .Values.extraArgs }}
- {{ . | quote }}
{{- end }}
{{- end }}

{{- /* Where the kubelet is asked. */ -}}
{{- define "coroner.kubeletPort" -}}
{{- $url := trimSuffix "/" .Values.kubelet.url }}
{{- if not $url }}10250
{{- else if regexMatch ":[0-9]+$" $url }}{{ regexFind "[0-9]+$" $url }}
{{- else }}{{ hasPrefix "https:" $url | ternary 443 80 }}
{{- end }}
{{- end }}

{{- define "coroner.securityContext" -}}
privileged: false
# The only user whom a runtime gives capabilities.
runAsUser: 0
runAsGroup: 0
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
  {{- $add := concat (.Values.sources.tracepoint | ternary (list "BPF" "PERFMON") list) (.Values.sources.kmsg | ternary (list "SYSLOG") list) .Values.extraCapabilities }}
  {{- if $add }}
  add: {{ toJson $add }}
  {{- end }}
seccompProfile: {{ toJson .Values.seccompProfile }}
{{- end }}

{{- /* What is mounted: name, of the node, type, in the container. All but the history is read-only. A socket that a runtime
makes anew when it starts is lost to a container that has it alone: its folder is mounted. */ -}}
{{- define "coroner.mounts" -}}
{{- with .Values.history.hostPath }}
- {name: history, from: {{ . | quote }}, type: DirectoryOrCreate, at: /var/lib/coroner}
{{- end }}
{{- if .Values.sources.cgroup }}
- {name: cgroup, from: /sys/fs/cgroup, type: Directory, at: /sys/fs/cgroup}
{{- end }}
{{- if .Values.podLogs }}
- {name: pod-logs, from: /var/log/pods, type: DirectoryOrCreate, at: /var/log/pods}
{{- end }}
{{- if .Values.journal }}
- {name: journal, from: /var/log/journal, type: "", at: /var/log/journal}
- {name: journal-run, from: /run/log/journal, type: "", at: /run/log/journal}
{{- end }}
{{- with .Values.sources.criSocket }}
- {name: runtime, from: {{ dir . | quote }}, type: Directory, at: {{ dir . | quote }}}
{{- end }}
{{- with .Values.kubelet.caFile }}
- {name: kubelet-ca, from: {{ . | quote }}, type: File, at: /etc/coroner/kubelet-ca.crt}
{{- end }}
{{- end }}

{{- /* With passwords no kubelet gets an answer: that the port is open has to do. */ -}}
{{- define "coroner.probe" -}}
{{- if .root.Values.web.configSecret -}}
tcpSocket: {port: {{ .root.Values.web.scheme }}}
{{- else -}}
httpGet: {path: {{ .path }}, port: {{ .root.Values.web.scheme }}}
{{- end }}
timeoutSeconds: 5
{{- end }}
