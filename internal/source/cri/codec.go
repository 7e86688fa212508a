// SPDX-License-Identifier: Apache-2.0

package cri

import (
	"bytes"
	"errors"
	"fmt"
	"unicode/utf8"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// codec is gRPC's own form of messages, but it reads text that is no UTF-8:
// runtimes pass on labels and annotations as somebody gave them, and one pod's
// must not make a list of all unreadable.
type codec struct{}

var errNoMessage = errors.New("no protobuf message")

// Name is the content type that runtimes know.
func (codec) Name() string { return "proto" }

// Marshal writes a message.
func (codec) Marshal(v any) (mem.BufferSlice, error) {
	m, ok := v.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("%T: %w", v, errNoMessage)
	}
	b, err := proto.Marshal(m)
	if err != nil {
		return nil, err
	}
	return mem.BufferSlice{mem.SliceBuffer(b)}, nil
}

// Unmarshal reads a message.
func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(proto.Message)
	if !ok {
		return fmt.Errorf("%T: %w", v, errNoMessage)
	}
	return unmarshal(data.Materialize(), m)
}

func unmarshal(b []byte, m proto.Message) error {
	err := proto.Unmarshal(b, m)
	if err == nil {
		return nil
	}
	mended, ok := mendText(b, m.ProtoReflect().Descriptor(), 0)
	if !ok {
		return err
	}
	return proto.Unmarshal(mended, m)
}

// maxDepth bounds messages within messages; the interface has less than ten.
const maxDepth = 32

// mendText puts a question mark where text of a message is no UTF-8. false:
// this is no message of that kind.
func mendText(b []byte, d protoreflect.MessageDescriptor, depth int) ([]byte, bool) {
	if depth > maxDepth {
		return nil, false
	}
	out := make([]byte, 0, len(b))
	for len(b) > 0 {
		num, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil, false
		}
		size := protowire.ConsumeFieldValue(num, kind, b[n:])
		if size < 0 {
			return nil, false
		}
		tag, value := b[:n], b[n:n+size]
		b = b[n+size:]
		field := d.Fields().ByNumber(num)
		if kind != protowire.BytesType || field == nil {
			out = append(append(out, tag...), value...)
			continue
		}
		text, _ := protowire.ConsumeBytes(value)
		switch {
		case field.Kind() == protoreflect.StringKind && !utf8.Valid(text):
			text = bytes.ToValidUTF8(text, []byte{'?'})
		case field.Kind() == protoreflect.MessageKind:
			var ok bool
			if text, ok = mendText(text, field.Message(), depth+1); !ok {
				return nil, false
			}
		}
		out = protowire.AppendBytes(append(out, tag...), text)
	}
	return out, true
}
