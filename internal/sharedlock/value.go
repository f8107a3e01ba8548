package sharedlock

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/kv"
	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// The item of a lock has one of two values, words with a space between:
//
//	held <token, 32 hex digits> <since, Unix ms> <gate> <host>    the last two as in a URL's query
//	turn <manager, 16 hex digits>                                 free, but kept for a gate that waits
const (
	wordHeld = "held"
	wordTurn = "turn"
)

// heldValue is unique to a lease, by its token and by when it was acquired: an attempt that failed has the same token.
func heldValue(h sessionlock.RemoteHolder) []byte {
	return fmt.Appendf(nil, "%s %s %d %s %s", wordHeld, h.Token, h.Since.UnixMilli(),
		url.QueryEscape(h.Gate), url.QueryEscape(h.Host))
}

func turnValue(m manager) []byte { return fmt.Appendf(nil, "%s %s", wordTurn, m) }

// parseHeld parses the value of a lock that is held. It returns false if it does not understand the value.
func parseHeld(value []byte) (h sessionlock.RemoteHolder, ok bool) {
	words := strings.Split(string(value), " ")
	if len(words) < 5 || words[0] != wordHeld {
		return sessionlock.RemoteHolder{}, false
	}
	since, err := strconv.ParseInt(words[2], 10, 64)
	if err != nil || len(words[1]) != hex.EncodedLen(len(h.Token)) {
		return sessionlock.RemoteHolder{}, false
	}
	if _, err := hex.Decode(h.Token[:], []byte(words[1])); err != nil {
		return sessionlock.RemoteHolder{}, false
	}
	h.Since = time.UnixMilli(since)
	// Only for operators: a name that cannot be read does not make the lock less held.
	h.Gate, _ = url.QueryUnescape(words[3])
	h.Host, _ = url.QueryUnescape(words[4])
	return h, true
}

// sameValue reports whether an item is there with that value.
func sameValue(it *kv.Item, value []byte) bool {
	return it != nil && bytes.Equal(it.Value, value)
}

// manager is what the tokens of one sessionlock.Manager begin with.
type manager [8]byte

func (m manager) String() string { return hex.EncodeToString(m[:]) }

// parseLine reads the managers that wait, the first that came first. What it does not understand it leaves out.
func parseLine(it *kv.Item) (line []manager) {
	if it == nil {
		return nil
	}
	for word := range strings.FieldsSeq(string(it.Value)) {
		var m manager
		if len(word) != hex.EncodedLen(len(m)) {
			continue
		}
		if _, err := hex.Decode(m[:], []byte(word)); err == nil {
			line = append(line, m)
		}
	}
	return line
}

// lineValue is what parseLine reads.
func lineValue(line []manager) []byte {
	words := make([]string, len(line))
	for i, m := range line {
		words[i] = m.String()
	}
	return []byte(strings.Join(words, " "))
}
