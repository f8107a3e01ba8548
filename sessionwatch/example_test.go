package sessionwatch_test

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/fpm-gate/fpm-gate/sessionwatch"
)

// The watch ends when PHP has closed the session. What PHP does with the file, the example does itself.
func Example() {
	savePath, err := os.MkdirTemp("", "sessions")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(savePath)
	files := sessionwatch.NewFiles(func(folder string, err error) { fmt.Println(folder, err) })
	defer files.Close()
	folder := files.Folder(savePath, 0)
	defer folder.Close()

	closed := make(chan sessionwatch.State, 1)
	w := folder.Watch([]byte("abc"), func(s sessionwatch.State) { closed <- s })
	defer w.Stop()
	w.Prioritize() // a request waits for the session

	session, err := os.OpenFile(filepath.Join(savePath, "sess_abc"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		fmt.Println(err)
		return
	}
	_ = session.Close()
	fmt.Println(<-closed == sessionwatch.Closed)
	// Output: true
}
