package fcgi

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
)

// scanned is what became of a request's stdin.
type scanned struct {
	forward []byte
	early   []byte // kept for the requests that follow
	replies []byte // to the web server
	whole   bool
	aborted bool
	err     error
}

// scanPieces feeds pieces to the scan of request 1 as they would come from a conn.
func scanPieces(role Role, pieces [][]byte) scanned {
	web := new(memory)
	r := &Request{ID: 1, Role: role, conn: connOn(web, Limits{}), begun: true}
	r.conn.req.begun = true
	r.stdin = stdinScan{conn: r.conn, request: r.ID, id: 1, wantsData: role == RoleFilter}
	var got scanned
	var rest []byte
	for _, piece := range pieces {
		forward, behind, err := r.stdin.scan(append(rest, piece...))
		got.forward = append(got.forward, forward...)
		if got.err = err; err != nil {
			break
		}
		rest = bytes.Clone(behind)
	}
	got.early = r.conn.early.records
	got.replies = web.written.Bytes()
	got.whole = r.stdin.whole() && len(rest) == 0
	got.aborted = r.stdin.aborted
	return got
}

func TestStdinIsForwardedAsItCameWhateverTheCuts(t *testing.T) {
	stdin := joined(padded(TypeStdin, 1, "first", 3), padded(TypeStdin, 1, "second", 0))
	end := AppendRecord(nil, TypeStdin, 1, nil)
	data := joined(padded(TypeData, 1, "data", 1), AppendRecord(nil, TypeData, 1, nil))
	getValues := AppendRecord(nil, TypeGetValues, 0, pairsOf("FCGI_MPXS_CONNS", "", "FCGI_MAX_CONNS", ""))
	getValuesResult := AppendRecord(nil, TypeGetValuesResult, 0, pairsOf("FCGI_MPXS_CONNS", "0"))
	second := AppendBeginRequest(nil, 2, RoleResponder, true)
	for _, c := range []struct {
		name                        string
		role                        Role
		in, forward, early, replies []byte
		cutShort, abort, fails      bool
	}{
		{name: "no stdin", in: end, forward: end},
		{name: "two records and their end", in: joined(stdin, end), forward: joined(stdin, end)},
		{name: "no end", in: stdin, forward: stdin, cutShort: true},
		{name: "get values in between", in: joined(stdin, getValues, end), forward: joined(stdin, end), replies: getValuesResult},
		{name: "an unknown management record", in: joined(padded(99, 0, "what?", 2), stdin, end), forward: joined(stdin, end), replies: appendUnknownType(nil, 99)},
		{
			name: "a second request, with params and stdin", in: joined(second, paramsOf(2, "A", "a"), stdin, stdinOf(2, "x"), end),
			forward: joined(stdin, end), early: joined(second, paramsOf(2, "A", "a"), stdinOf(2, "x")),
		},
		{
			name: "two more requests, of which one is aborted", in: joined(second, AppendBeginRequest(nil, 3, RoleResponder, true), stdin, paramsOf(3), AppendRecord(nil, TypeAbortRequest, 3, nil), paramsOf(2), end, padded(TypeStdin, 3, "late", 1)),
			forward: joined(stdin, end), early: joined(second, paramsOf(2)), replies: AppendEndRequest(nil, 3, 0, StatusRequestComplete),
		},
		{
			name: "the next request, with the same id", in: joined(stdin, end, requestOf(1, true, "next", "A", "a"), AppendBeginRequest(nil, 1, RoleResponder, true)),
			forward: joined(stdin, end), early: joined(requestOf(1, true, "next", "A", "a"), AppendBeginRequest(nil, 1, RoleResponder, true)),
		},
		{name: "records of no request", in: joined(padded(TypeStdin, 9, "x", 9), end, padded(TypeParams, 8, "y", 1)), forward: end},
		{name: "an abort request", in: joined(stdin, AppendRecord(nil, TypeAbortRequest, 1, nil)), forward: stdin, cutShort: true, abort: true},
		{name: "another one's abort request", in: joined(AppendRecord(nil, TypeAbortRequest, 2, nil), end), forward: end},
		{name: "a filter's data", role: RoleFilter, in: joined(stdin, end, data), forward: joined(stdin, end, data)},
		{name: "a filter without data", role: RoleFilter, in: joined(stdin, end), forward: joined(stdin, end), cutShort: true},
		{name: "data for a responder", in: data, fails: true},
		{name: "stdin behind its end", in: joined(end, stdin), forward: end, fails: true},
		{name: "params behind their end", in: paramsOf(1, "A", "a"), fails: true},
		{name: "a second begin request with the same id, before the end of stdin", in: AppendBeginRequest(nil, 1, RoleResponder, true), fails: true},
		{name: "a wrong version", in: []byte{2, 5, 0, 1, 0, 0, 0, 0}, fails: true},
		{name: "get values that are cut short", in: AppendRecord(nil, TypeGetValues, 0, []byte{5}), fails: true, replies: refusal(0, errors.New("malformed FastCGI: get values: the length of a value is cut short"))},
	} {
		if c.role == 0 {
			c.role = RoleResponder
		}
		everyCut(c.in, func(cut string, pieces [][]byte) {
			got := scanPieces(c.role, pieces)
			name := fmt.Sprintf("%s, %s", c.name, cut)
			if !bytes.Equal(got.forward, c.forward) {
				t.Errorf("%s: forwarded %q, want %q", name, got.forward, c.forward)
			}
			if !bytes.Equal(got.early, c.early) {
				t.Errorf("%s: kept %q, want %q", name, got.early, c.early)
			}
			if !c.fails && !bytes.Equal(got.replies, c.replies) {
				t.Errorf("%s: replied %q, want %q", name, got.replies, c.replies)
			}
			if errors.Is(got.err, ErrMalformed) != c.fails {
				t.Errorf("%s: got error %v", name, got.err)
			}
			if got.whole == (c.cutShort || c.fails) && !c.fails {
				t.Errorf("%s: whole is %t", name, got.whole)
			}
			if got.aborted != c.abort {
				t.Errorf("%s: aborted is %t", name, got.aborted)
			}
		})
	}
}

// FuzzStdin holds the scan to a model that sees all of stdin at once: what is forwarded, what is answered and how
// it ends must not depend on the cuts.
func FuzzStdin(f *testing.F) {
	f.Add(joined(stdinOf(1, "body"), AppendRecord(nil, TypeGetValues, 0, nil)), []byte{0, 3, 0, 0, 9}, false)
	f.Add(joined(AppendBeginRequest(nil, 2, RoleResponder, true), stdinOf(1, "x")), []byte{7}, false)
	f.Add(joined(stdinOf(1, ""), requestOf(1, true, "x"), AppendBeginRequest(nil, 2, RoleResponder, true), AppendRecord(nil, TypeAbortRequest, 1, nil)), []byte{7, 7, 30}, false)
	f.Add(joined(stdinOf(1, ""), padded(TypeData, 1, "d", 4), AppendRecord(nil, TypeData, 1, nil)), []byte{1, 1, 1}, true)
	f.Add(joined(padded(TypeAbortRequest, 1, "", 7), stdinOf(1, "x")), []byte{7}, false)
	f.Fuzz(func(t *testing.T, in, cuts []byte, filter bool) {
		role := RoleResponder
		if filter {
			role = RoleFilter
		}
		want := modelStdin(role, in)
		got := scanPieces(role, cutAt(in, cuts))
		if !bytes.Equal(got.forward, want.forward) {
			t.Errorf("forwarded %q, want %q", got.forward, want.forward)
		}
		if (got.err != nil) != (want.err != nil) {
			t.Errorf("got error %v, want %v", got.err, want.err)
		}
		if got.err == nil && !bytes.Equal(got.replies, want.replies) {
			t.Errorf("replied %q, want %q", got.replies, want.replies)
		}
		if got.err == nil && !bytes.Equal(got.early, want.early) {
			t.Errorf("kept %q, want %q", got.early, want.early)
		}
	})
}

// modelStdin is what is to become of in, judged slowly and all at once.
func modelStdin(role Role, in []byte) (want scanned) {
	stdinPlaceed, dataEnded := false, role != RoleFilter
	begun := map[uint16]bool{}
	for len(in) >= headerLen {
		h := ParseHeader(in)
		record := in[:min(h.Len(), len(in))]
		cut := len(record) < h.Len()
		own := h.RequestID == 1 && !begun[1] && (h.Type != TypeBeginRequest || !stdinPlaceed || !dataEnded)
		switch {
		case h.Version != version:
			want.err = ErrMalformed
			return want
		case own && h.Type == TypeAbortRequest:
		case own && h.Type == TypeStdin && !stdinPlaceed:
			stdinPlaceed = h.ContentLength == 0
			want.forward = append(want.forward, record...)
		case own && h.Type == TypeData && !dataEnded:
			dataEnded = h.ContentLength == 0
			want.forward = append(want.forward, record...)
		case own:
			want.err = ErrMalformed
			return want
		case begun[h.RequestID] && h.Type == TypeAbortRequest:
			delete(begun, h.RequestID)
			want.early = withoutRequest(want.early, h.RequestID)
			want.replies = AppendEndRequest(want.replies, h.RequestID, 0, StatusRequestComplete)
		case h.RequestID != 0 && (h.Type == TypeBeginRequest || begun[h.RequestID]):
			begun[h.RequestID] = true
			want.early = append(want.early, record...)
		case cut:
		case h.RequestID == 0 && h.Type == TypeGetValues:
			values, err := answerGetValues(record[headerLen : headerLen+h.ContentLength])
			if err != nil {
				want.err = err
				return want
			}
			want.replies = AppendRecord(want.replies, TypeGetValuesResult, 0, values)
		case h.RequestID == 0:
			want.replies = appendUnknownType(want.replies, h.Type)
		}
		in = in[len(record):]
	}
	return want
}

// withoutRequest returns records without those of a request.
func withoutRequest(records []byte, id uint16) (others []byte) {
	for len(records) > 0 {
		h := ParseHeader(records)
		if h.RequestID != id {
			others = append(others, records[:h.Len()]...)
		}
		records = records[h.Len():]
	}
	return others
}
