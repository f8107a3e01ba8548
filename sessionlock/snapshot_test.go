package sessionlock_test

import (
	"context"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fpm-gate/fpm-gate/sessionlock"
)

func TestSnapshotShowsWhoHoldsAndWhoWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, _, m := remote(10 * time.Second)
		begun := time.Now()
		keys := make([]sessionlock.Key, 3)
		for i := range keys {
			keys[i][0] = byte(9 - i) // the order is not that of the keys
		}
		elsewhere, err := sessionlock.NewManager(server.Gate()).Acquire(t.Context(), keys[0], path("/elsewhere"), patient)
		if err != nil {
			t.Fatal(err)
		}
		ask := func(key sessionlock.Key, by sessionlock.Holder, p sessionlock.Policy) *sessionlock.Lock {
			l, _ := m.Acquire(context.Background(), key, by, p)
			return l
		}
		oldest := ask(keys[1], path("/oldest"), sessionlock.Policy{Expiry: time.Hour})
		time.Sleep(time.Second)
		youngest := ask(keys[2], nil, patient)
		hour := sessionlock.Policy{MaxWait: time.Hour, Expiry: time.Hour}
		go ask(keys[0], path("/waits for elsewhere"), hour)
		go ask(keys[1], path("/first"), hour)
		synctest.Wait()
		time.Sleep(time.Second)
		go ask(keys[1], path("/second"), hour)
		synctest.Wait()

		waits := func(path string, after time.Duration) sessionlock.WaiterState {
			return sessionlock.WaiterState{Description: sessionlock.Description{Path: path}, Since: begun.Add(after)}
		}
		want := []sessionlock.SessionState{{
			Key: keys[1], Held: true, Holder: path("/oldest").Describe(), Token: oldest.Token(),
			Since: begun, Expires: begun.Add(time.Hour),
			Waiters: []sessionlock.WaiterState{waits("/first", time.Second), waits("/second", 2*time.Second)},
		}, {
			Key: keys[2], Held: true, Token: youngest.Token(), Since: begun.Add(time.Second),
		}, {
			Key: keys[0], Waiters: []sessionlock.WaiterState{waits("/waits for elsewhere", time.Second)},
		}}
		if got := m.Snapshot(); !reflect.DeepEqual(got, want) {
			t.Errorf("got\n%+v\nwant\n%+v", got, want)
		}

		for key, want := range map[sessionlock.Key]string{keys[1]: "/oldest", keys[0]: ""} {
			if d, held := m.DescribeHolder(key); d.Path != want || held != (want != "") {
				t.Errorf("got %+v, %v of a holder, want %q", d, held, want)
			}
		}

		elsewhere.Release()
		oldest.Release()
		youngest.Release()
		time.Sleep(3 * time.Hour) // the waiters' locks expire
		if got := m.Snapshot(); len(got) != 0 {
			t.Errorf("got %+v of idle sessions, want nothing", got)
		}
	})
}
