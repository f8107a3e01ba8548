package fcgi

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// relayed is what became of a response.
type relayed struct {
	out    []byte
	blocks []string // that the hook has seen
	err    error
}

// relayIDs are the ids that a request may have: its web server's, and PHP-FPM's, which is not 1 if the connection has
// served requests before.
var relayIDs = []struct{ web, php uint16 }{{1, 2}, {7, 1}, {7, 2}, {7, 9}}

// relayPieces relays a response of request 1 that comes in pieces. A nil hook wants to see no header. What becomes of it
// must not depend on the ids; else it returns another result than that for the id 1.
func relayPieces(hook func(*ResponseHeader), pieces [][]byte) (got relayed) {
	want := relayAs(1, 1, hook, pieces)
	for _, ids := range relayIDs {
		if got = relayAs(ids.web, ids.php, hook, pieces); !reflect.DeepEqual(got, want) {
			break
		}
	}
	return got
}

// relayAs is relayPieces of a request that has other ids. Those of the result are 1 again.
func relayAs(webID, phpID uint16, hook func(*ResponseHeader), pieces [][]byte) relayed {
	all := joined(pieces...)
	setRequestIDs(all, phpID)
	pieces = slices.Clone(pieces)
	for i := range pieces {
		pieces[i], all = all[:len(pieces[i]):len(pieces[i])], all[len(pieces[i]):]
	}
	web := new(memory)
	pool := NewPool(PoolOptions{})
	var got relayed
	x := &Exchange{
		Request: &Request{ID: webID, conn: connOn(web, Limits{})},
		pool:    pool, inHeader: true,
		link: link{up: &upstream{nc: &memory{pieces: pieces}, backend: new(backend), id: phpID}},
	}
	if hook != nil {
		x.Header = func(h *ResponseHeader) {
			got.blocks = append(got.blocks, string(h.block))
			hook(h)
		}
	}
	got.err = x.relay()
	got.out = web.written.Bytes()
	for rest := got.out; len(rest) >= headerLen; rest = rest[ParseHeader(rest).Len():] {
		if id := ParseHeader(rest).RequestID; id != webID {
			got.err = errors.Join(got.err, fmt.Errorf("a record has the id %d, want %d", id, webID))
		}
	}
	setRequestIDs(got.out, 1)
	return got
}

func look(*ResponseHeader) {}

const block = "Status: 201\r\nX-A: a\r\nSet-Cookie: b=c\r\n\r\n"

// responses of request 1, all with the header block above.
var responses = map[string][]byte{
	"in one record":  joined(AppendRecord(nil, TypeStdout, 1, []byte(block+"body")), AppendEndRequest(nil, 1, 0, 0)),
	"without a body": joined(AppendRecord(nil, TypeStdout, 1, []byte(block)), AppendRecord(nil, TypeStdout, 1, nil), AppendEndRequest(nil, 1, 3, 0)),
	"with stderr around, and padding": joined(
		padded(TypeStderr, 1, "warning", 1), padded(TypeStdout, 1, block+"bo", 7), padded(TypeStderr, 1, "", 0),
		padded(TypeStderr, 1, "another", 3), padded(TypeStdout, 1, "dy", 0), AppendEndRequest(nil, 1, 0, 0)),
	"with its header in three records": joined(
		padded(TypeStdout, 1, block[:5], 3), padded(TypeStderr, 1, "warning", 1), padded(TypeStdout, 1, block[5:len(block)-1], 0),
		padded(TypeStdout, 1, block[len(block)-1:]+"body", 2), AppendEndRequest(nil, 1, 0, 0)),
}

func TestResponsePassesAsItCameWhateverTheCuts(t *testing.T) {
	for name, in := range responses {
		everyCut(in, func(cut string, pieces [][]byte) {
			if got := relayPieces(nil, pieces); !bytes.Equal(got.out, in) || got.err != nil {
				t.Errorf("%s, %s, unseen: got %q and %v, want %q", name, cut, got.out, got.err, in)
			}
		})
		everyCut(in, func(cut string, pieces [][]byte) {
			got := relayPieces(look, pieces)
			if !bytes.Equal(got.out, in) || got.err != nil {
				t.Errorf("%s, %s, seen: got %q and %v, want %q", name, cut, got.out, got.err, in)
			}
			if len(got.blocks) != 1 || got.blocks[0] != block {
				t.Errorf("%s, %s: the hook saw %q, want %q", name, cut, got.blocks, block)
			}
		})
	}
}

func TestHeaderEditsKeepTheRest(t *testing.T) {
	edit := func(h *ResponseHeader) {
		h.Remove("x-a")
		h.Add("X-New", "1")
	}
	want := "X-New: 1\r\n" + strings.Replace(block, "X-A: a\r\n", "", 1)
	for name, in := range responses {
		original := separate(t, in)
		everyCut(in, func(cut string, pieces [][]byte) {
			got := relayPieces(edit, pieces)
			if got.err != nil {
				t.Fatalf("%s, %s: %v", name, cut, got.err)
			}
			edited := separate(t, got.out)
			if edited.stdout != want+original.stdout[len(block):] || edited.stderr != original.stderr || edited.appStatus != original.appStatus {
				t.Errorf("%s, %s: got %+v", name, cut, edited)
			}
		})
	}
}

func separate(t testing.TB, records []byte) response {
	t.Helper()
	in := bytes.NewReader(records)
	r, err := readResponse(in, 1)
	if err != nil || in.Len() > 0 {
		t.Fatalf("response %q: %v, and %d bytes behind it", records, err, in.Len())
	}
	return r
}

func TestHeaderHookIsNotCalledWhereThereIsNoHeader(t *testing.T) {
	end := AppendEndRequest(nil, 1, 0, 0)
	endless := AppendStream(nil, TypeStdout, 1, []byte("X: "+strings.Repeat("x", 3*maxHeader)))
	late := AppendStream(nil, TypeStdout, 1, []byte("X: "+strings.Repeat("x", maxHeader)+"\r\n\r\n"))
	for name, in := range map[string][]byte{
		"no stdout at all":                end,
		"stderr alone":                    joined(padded(TypeStderr, 1, "no", 3), end),
		"an empty stdout":                 joined(AppendRecord(nil, TypeStdout, 1, nil), end),
		"a block that does not end":       joined(padded(TypeStdout, 1, "X-A: a\r\nX-B", 0), end),
		"a block without an end, 192 KiB": joined(endless, end),
		"a block that ends behind 64 KiB": joined(late, end),
	} {
		for _, step := range []int{1 << 20, 60_000, 16_384, 4093} {
			got := relayPieces(look, chunks(in, step))
			if got.err != nil || !bytes.Equal(got.out, in) || len(got.blocks) > 0 {
				t.Errorf("%s, in steps of %d: got %d bytes, %d blocks and %v, want %d bytes and no block",
					name, step, len(got.out), len(got.blocks), got.err, len(in))
			}
		}
	}
}

func chunks(b []byte, n int) [][]byte {
	var pieces [][]byte
	for len(b) > 0 {
		k := min(n, len(b))
		pieces = append(pieces, b[:k:k])
		b = b[k:]
	}
	return pieces
}

func TestLargestHeadersAndRecordsPass(t *testing.T) {
	end := AppendEndRequest(nil, 1, 0, 0)
	half := "X: " + strings.Repeat("x", maxContent-3)
	stderr := bytes.Repeat(padded(TypeStderr, 1, strings.Repeat("e", maxContent), maxPadding), 4)
	for name, in := range map[string][]byte{
		"a record of 64 KiB without the end of its header, and another": joined(
			padded(TypeStdout, 1, half, maxPadding), padded(TypeStdout, 1, strings.Repeat("y", maxContent), maxPadding), end),
		"much stderr in the middle of a header": joined(
			padded(TypeStdout, 1, block[:9], 0), stderr, padded(TypeStdout, 1, block[9:]+"body", 0), end),
		"a body of the largest records": joined(padded(TypeStdout, 1, block, 0),
			bytes.Repeat(padded(TypeStdout, 1, half, maxPadding), 5), end),
	} {
		for _, step := range []int{1 << 20, 65_536, 4093} {
			got := relayPieces(look, chunks(in, step))
			if got.err != nil || !bytes.Equal(got.out, in) {
				t.Errorf("%s, in steps of %d: got %d bytes and %v, want %d", name, step, len(got.out), got.err, len(in))
			}
		}
	}
}

func TestResponseThatIsCutShortHasNoEnd(t *testing.T) {
	for name, in := range responses {
		for i := range in {
			got := relayPieces(look, [][]byte{in[:i:i]})
			if got.err != io.EOF {
				t.Errorf("%s, cut at %d: got %v, want EOF", name, i, got.err)
			}
			if !bytes.HasPrefix(in, got.out) {
				t.Errorf("%s, cut at %d: %q was passed on", name, i, got.out)
			}
		}
	}
}

func TestResponseHeaderIsReadAsHTTPDoes(t *testing.T) {
	h := ResponseHeader{block: []byte("Status: 200\r\nno colon\r\nX-Empty:\r\nx-a:  spaces \t\r\nX-A: b: c\nX-B:last\r\n\r\n")}
	var got []string
	for name, value := range h.All() {
		got = append(got, fmt.Sprintf("%s=%s", name, value))
	}
	if want := "Status=200|X-Empty=|x-a=spaces|X-A=b: c|X-B=last"; strings.Join(got, "|") != want {
		t.Errorf("got %s, want %s", strings.Join(got, "|"), want)
	}
	h.Remove("X-a")
	if want := "Status: 200\r\nno colon\r\nX-Empty:\r\nX-B:last\r\n\r\n"; string(h.block) != want || !h.edited {
		t.Errorf("after the removal: got %q, want %q", h.block, want)
	}
}

// FuzzResponse relays whole records of any content, cut anywhere. They must come out as they went in, and the hook
// must see the same block whatever the cuts.
func FuzzResponse(f *testing.F) {
	f.Add([]byte(block+"body"), []byte{3, 0, 9, 200}, []byte{1, 7, 0})
	f.Add([]byte("X: y\n\nbody"), []byte{0, 0, 0}, []byte{})
	f.Add([]byte("\r\n\r\n"), []byte{1, 128, 2}, []byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, stdout, layout, cuts []byte) {
		if len(stdout) > maxHeader/2 || len(layout) > 100 {
			return
		}
		in := joined(laidOut(stdout, layout), AppendEndRequest(nil, 1, 9, 0))
		whole := relayPieces(look, [][]byte{in})
		pieces := relayPieces(look, cutAt(in, cuts))
		for name, got := range map[string]relayed{"whole": whole, "in pieces": pieces} {
			if got.err != nil || !bytes.Equal(got.out, in) {
				t.Errorf("%s: got %q and %v, want %q", name, got.out, got.err, in)
			}
		}
		if strings.Join(whole.blocks, "|") != strings.Join(pieces.blocks, "|") {
			t.Errorf("the hook saw %q, and %q in pieces", whole.blocks, pieces.blocks)
		}
		original := separate(t, in)
		edited := relayPieces(func(h *ResponseHeader) { h.Add("A", "b") }, cutAt(in, cuts))
		if got := separate(t, edited.out); len(edited.blocks) == 1 && got.stdout != "A: b\r\n"+original.stdout || got.stderr != original.stderr {
			t.Errorf("edited: got %+v, want %+v with one more line", got, original)
		}
	})
}

// laidOut puts stdout into records with padding, and records of stderr between them, as layout says.
func laidOut(stdout, layout []byte) []byte {
	var b []byte
	for _, n := range layout {
		if n >= 128 {
			b = append(b, padded(TypeStderr, 1, "stderr", int(n)-128)...)
			continue
		}
		k := min(int(n)+1, len(stdout))
		if k > 0 {
			b = append(b, padded(TypeStdout, 1, string(stdout[:k]), int(n))...)
		}
		stdout = stdout[k:]
	}
	return AppendStream(b, TypeStdout, 1, stdout)
}
