// Package browser opens pages in a real, headless Chromium for tests. It records what no page of ours may do: errors in
// the console, and requests to other origins.
//
// Without Chromium a test is skipped, or fails if CI=true, as with all programs of the rig.
package browser

import (
	"context"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/fpm-gate/fpm-gate/internal/rig"
	"github.com/fpm-gate/fpm-gate/internal/rig/rigtest"
)

// Browser is a running Chromium, which ends with its test.
type Browser struct{ ctx context.Context }

// Start starts a Chromium with a profile of its own.
func Start(t testing.TB) *Browser {
	t.Helper()
	rigtest.Need(t, "chromium")
	path, err := rig.Find("chromium")
	if err != nil {
		t.Fatal(err)
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path),
		chromedp.UserDataDir(t.TempDir()),
		chromedp.DisableGPU,
		chromedp.NoSandbox, // it refuses root, and systems without user namespaces; the pages are our own
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true),
	)
	ctx, end := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(end)
	ctx, end = chromedp.NewContext(ctx)
	t.Cleanup(end)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("start Chromium: %v", err)
	}
	return &Browser{ctx}
}

// Tab is a page that is open. It belongs to one goroutine.
type Tab struct {
	ctx context.Context

	mu         sync.Mutex
	complaints []string // without duplicates
	requests   []string
}

// patience is how long a tab may take for everything that a test does in it.
const patience = 2 * time.Minute

// Open opens an address in a new tab, after the actions that prepare it.
func (b *Browser) Open(t testing.TB, address string, prepare ...chromedp.Action[chromedp.Void]) *Tab {
	t.Helper()
	tab := new(Tab)
	ctx, end := chromedp.NewContext(b.ctx, chromedp.WithListener(tab.note))
	t.Cleanup(end)
	if err := chromedp.Do(ctx); err != nil { // without a deadline, which would be the tab's own
		t.Fatalf("open a tab: %v", err)
	}
	tab.ctx, end = context.WithTimeout(ctx, patience)
	t.Cleanup(end)
	if _, err := chromedp.Call(tab.ctx, network.Enable, network.EnableParams{}); err != nil {
		t.Fatalf("watch a tab's requests: %v", err)
	}
	tab.Do(t, append(prepare, chromedp.Navigate(address))...)
	return tab
}

// Do does the actions, each after the one before, or ends the test.
func (tab *Tab) Do(t testing.TB, actions ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	if err := chromedp.Do(tab.ctx, actions...); err != nil {
		t.Fatalf("in the browser: %v; it complains of %q", err, tab.Complaints())
	}
}

// Get returns what an action does, or ends the test.
func Get[T any](t testing.TB, tab *Tab, action chromedp.Action[T]) T {
	t.Helper()
	value, err := chromedp.Run(tab.ctx, action)
	if err != nil {
		t.Fatalf("in the browser: %v; it complains of %q", err, tab.Complaints())
	}
	return value
}

// Eval returns what an expression in the page's language comes to, or what its promise does.
func Eval[T any](t testing.TB, tab *Tab, expression string) T {
	t.Helper()
	return Get(t, tab, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
}

// Await waits until an expression is true in the page.
func (tab *Tab) Await(t testing.TB, expression string) {
	t.Helper()
	for deadline := time.Now().Add(patience / 2); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if Eval[bool](t, tab, "!!("+expression+")") {
			return
		}
	}
	t.Fatalf("this never became true in the page: %s\nits text: %s\nit complains of %q",
		expression, Eval[string](t, tab, "document.body.innerText"), tab.Complaints())
}

// Emulate makes the page see other media features than the browser's own, such as a dark scheme or less motion.
func (tab *Tab) Emulate(t testing.TB, media emulation.SetEmulatedMediaParams) {
	t.Helper()
	if _, err := chromedp.Call(tab.ctx, emulation.SetEmulatedMedia, media); err != nil {
		t.Fatalf("emulate media: %v", err)
	}
}

// Complaints returns the errors and warnings in the console, uncaught exceptions, and what the browser itself refused.
func (tab *Tab) Complaints() []string {
	tab.mu.Lock()
	defer tab.mu.Unlock()
	return slices.Clone(tab.complaints)
}

// Strangers returns the URLs that were requested and are not of the page's origin.
func (tab *Tab) Strangers(origin string) []string {
	tab.mu.Lock()
	defer tab.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(tab.requests), func(address string) bool {
		u, err := url.Parse(address)
		return err == nil && strings.TrimSuffix(origin, "/") == u.Scheme+"://"+u.Host
	})
}

func (tab *Tab) note(event any) {
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		tab.mu.Lock()
		defer tab.mu.Unlock()
		tab.requests = append(tab.requests, e.Request.URL)
	case *runtime.EventExceptionThrown:
		tab.complain(e.ExceptionDetails.Text + " " + describe(e.ExceptionDetails.Exception))
	case *log.EventEntryAdded:
		if e.Entry.Level == log.EntryLevelError || e.Entry.Level == log.EntryLevelWarning {
			tab.complain(e.Entry.Text + " " + e.Entry.URL)
		}
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeWarning {
			tab.complain("console: " + spell(e.Args))
		}
	}
}

func (tab *Tab) complain(text string) {
	tab.mu.Lock()
	defer tab.mu.Unlock()
	if !slices.Contains(tab.complaints, text) {
		tab.complaints = append(tab.complaints, text)
	}
}

func spell(args []*runtime.RemoteObject) string {
	var words []string
	for _, a := range args {
		words = append(words, describe(a))
	}
	return strings.Join(words, " ")
}

func describe(o *runtime.RemoteObject) string {
	if o == nil {
		return ""
	}
	return string(o.Value) + o.Description
}
