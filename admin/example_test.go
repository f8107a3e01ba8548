package admin_test

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"

	"github.com/hashicorp/go-hclog"

	"github.com/fpm-gate/fpm-gate/admin"
	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// A process that serves its locks to operators.
func Example() {
	locks := sessionlock.NewManager(sessionlock.NewLocal())
	a := admin.New(admin.Options{
		Log:     hclog.NewNullLogger(),
		Version: "v1.0.0",
		Served:  func() admin.Served { return admin.Served{Locks: []admin.Locks{{Manager: locks}}} },
	})
	defer a.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	server := a.Serve(l)
	defer server.Close()

	resp, err := http.Get("http://" + l.Addr().String() + "/locks")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	var page admin.LocksPage
	if err := json.NewDecoder(resp.Body).Decode(&page); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(resp.Status, len(page.Locks))
	// Output: 200 OK 0
}
