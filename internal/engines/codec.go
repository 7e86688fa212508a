// SPDX-License-Identifier: Apache-2.0

package engines

import (
	"strings"

	"google.golang.org/grpc/encoding"
	protocodec "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Codec is gRPC's own, but it decodes also text that is not UTF-8. containerd 1
// lets such labels in, and one of them would otherwise spoil the list of all
// containers.
type Codec struct{ encoding.CodecV2 }

// NewCodec returns a Codec.
func NewCodec() Codec { return Codec{encoding.GetCodecV2(protocodec.Name)} }

// Unmarshal decodes data into v.
func (c Codec) Unmarshal(data mem.BufferSlice, v any) error {
	err := c.CodecV2.Unmarshal(data, v)
	m, ok := v.(proto.Message)
	if err == nil || !ok {
		return err
	}
	return repaired(data.Materialize(), m, err)
}

// Unmarshal decodes b into m, as Codec does.
func Unmarshal(b []byte, m proto.Message) error {
	if err := proto.Unmarshal(b, m); err != nil {
		return repaired(b, m, err)
	}
	return nil
}

// repaired decodes b with its text made valid; where that is not what was
// wrong with it, the error is err.
func repaired(b []byte, m proto.Message, err error) error {
	fixed, ok := repair(b, m.ProtoReflect().Descriptor(), 0)
	if !ok || proto.Unmarshal(fixed, m) != nil {
		return err
	}
	return nil
}

// maxNested bounds how deep messages lie in each other.
const maxNested = 16

// repair makes the text in a message valid UTF-8.
func repair(b []byte, d protoreflect.MessageDescriptor, depth int) ([]byte, bool) {
	out := make([]byte, 0, len(b))
	for len(b) > 0 {
		num, typ, tag := protowire.ConsumeTag(b)
		if tag < 0 || depth > maxNested {
			return nil, false
		}
		size := protowire.ConsumeFieldValue(num, typ, b[tag:])
		if size < 0 {
			return nil, false
		}
		field, value := d.Fields().ByNumber(num), b[tag:tag+size]
		out, b = append(out, b[:tag]...), b[tag+size:]
		if field == nil || typ != protowire.BytesType {
			out = append(out, value...)
			continue
		}
		content, _ := protowire.ConsumeBytes(value)
		switch field.Kind() {
		case protoreflect.StringKind:
			content = []byte(strings.ToValidUTF8(string(content), "?"))
		case protoreflect.MessageKind: // also an entry of a map
			fixed, ok := repair(content, field.Message(), depth+1)
			if !ok {
				return nil, false
			}
			content = fixed
		}
		out = protowire.AppendBytes(out, content)
	}
	return out, true
}
