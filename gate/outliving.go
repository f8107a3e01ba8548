package gate

import (
	"maps"
	"slices"
	"sync"
)

// outliver is a hold that outlives its request.
type outliver interface{ endNow() }

// outliving is the set of holds that outlive their requests.
type outliving struct {
	mu   sync.Mutex
	all  map[outliver]struct{}
	none chan struct{} // closed when all is empty; nil: no goroutine waits for that
}

func (o *outliving) add(h outliver) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.all == nil {
		o.all = make(map[outliver]struct{})
	}
	o.all[h] = struct{}{}
}

func (o *outliving) remove(h outliver) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.all, h)
	if len(o.all) == 0 && o.none != nil {
		close(o.none)
		o.none = nil
	}
}

// wait waits until all of them have ended.
func (o *outliving) wait() {
	o.mu.Lock()
	if len(o.all) == 0 {
		o.mu.Unlock()
		return
	}
	if o.none == nil {
		o.none = make(chan struct{})
	}
	none := o.none
	o.mu.Unlock()
	<-none
}

// end ends all of them.
func (o *outliving) end() {
	o.mu.Lock()
	all := slices.Collect(maps.Keys(o.all))
	o.mu.Unlock()
	for _, h := range all {
		h.endNow()
	}
}
