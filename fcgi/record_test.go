package fcgi

import (
	"bytes"
	"testing"
)

func TestRecordsAreLaidOutAsTheSpecificationSays(t *testing.T) {
	for _, c := range []struct {
		name      string
		got, want []byte
	}{
		{"a begin request", AppendBeginRequest(nil, 0x0102, RoleResponder, true), []byte{1, 1, 1, 2, 0, 8, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0}},
		{"a begin request of a conn that is not kept", AppendBeginRequest(nil, 1, RoleFilter, false), []byte{1, 1, 0, 1, 0, 8, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0}},
		{"an end request", AppendEndRequest(nil, 7, 0x01020304, StatusOverloaded), []byte{1, 3, 0, 7, 0, 8, 0, 0, 1, 2, 3, 4, 2, 0, 0, 0}},
		{"an unknown type", appendUnknownType(nil, 200), []byte{1, 11, 0, 0, 0, 8, 0, 0, 200, 0, 0, 0, 0, 0, 0, 0}},
		{"stdout", AppendRecord([]byte("before"), TypeStdout, 0xffff, []byte("hi")), []byte("before\x01\x06\xff\xff\x00\x02\x00\x00hi")},
		{"an empty stream", AppendStream(nil, TypeStdout, 1, nil), nil},
	} {
		if !bytes.Equal(c.got, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, c.got, c.want)
		}
	}
}

func TestLongStreamBecomesSeveralRecords(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789"), 20_000)
	var got []byte
	var lengths []int
	for rest := AppendStream(nil, TypeStdout, 1, content); len(rest) > 0; {
		h := ParseHeader(rest)
		got = append(got, rest[headerLen:headerLen+h.ContentLength]...)
		lengths = append(lengths, h.ContentLength)
		rest = rest[h.Len():]
	}
	if len(lengths) != 4 || lengths[0] != maxContent || !bytes.Equal(got, content) {
		t.Errorf("got %d bytes in records of %v, want %d bytes in four full records", len(got), lengths, len(content))
	}
}

func FuzzHeader(f *testing.F) {
	f.Add([]byte{1, 6, 1, 2, 3, 4, 5, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < headerLen {
			return
		}
		b[7] = 0 // reserved
		h := ParseHeader(b)
		if got := h.append(nil); !bytes.Equal(got, b[:headerLen]) {
			t.Errorf("parsed and written again: got %v, want %v", got, b[:headerLen])
		}
		if h.Len() > maxRecord {
			t.Errorf("got a record of %d bytes, want at most %d", h.Len(), maxRecord)
		}
	})
}
