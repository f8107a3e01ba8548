package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/fpm-gate/fpm-gate/config"
	"github.com/fpm-gate/fpm-gate/phpworker"
)

// helperFlags are the flags of helper.
type helperFlags struct {
	listen   string
	programs []string
}

func helperCommand() *cobra.Command {
	var f helperFlags
	cmd := &cobra.Command{
		Use:   "helper",
		Short: "Look at PHP-FPM's workers for gates that may not do so themselves",
		Long: `Look at PHP-FPM's workers, and end their scripts, for gates without the rights to do so. It
needs CAP_SYS_PTRACE and CAP_KILL, and nothing else: neither files nor network. A gate
passes the connection to PHP-FPM that it asks about, so it reaches only the worker that
serves it at that moment. The answers are states, session ids, process ids and lines.

systemd starts it by fpm-gate-helper.socket. Without systemd it takes --listen.`,
		Example: `  fpm-gate helper --listen unix:/run/fpm-gate/helper.sock
  fpm-gate helper --program 'php-fpm*' --program '/opt/php/sbin/php-fpm'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd.Context()) },
	}
	cmd.Flags().StringVar(&f.listen, "listen", "",
		"the `address` where gates connect, instead of systemd's socket: unix:/path")
	cmd.Flags().StringArrayVar(&f.programs, "program", phpworker.DefaultPrograms,
		"a `pattern` of programs that may be looked at: of the name of a file that is root's, or with a slash of its"+
			" path; can be repeated")
	return cmd
}

// run answers gates until a signal ends it.
func (f *helperFlags) run(ctx context.Context) error {
	if err := f.check(); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT)
	defer stop()
	logs := newLogs(&config.Config{Log: config.Log{Level: "info"}})
	defer logs.sink.flush()
	log := logs.Named("helper")
	// No other process, of the same user either, shall read its memory or get at its capabilities.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		log.Warn("cannot make the process unreadable to others", "error", err)
	}
	// Without rights it serves all the same: each gate gets the reason for an answer, and its operator reads it there.
	if err := phpworker.Rights(); err != nil {
		log.Error("workers of other users cannot be looked at", "error", err)
	}
	listeners, err := f.listeners()
	if err != nil {
		return failed(err)
	}
	log.Info("serving", "version", versionText(), "programs", strings.Join(f.programs, " "))
	_, _ = daemon.SdNotify(false, daemon.SdNotifyReady)
	err = f.serve(ctx, listeners, log)
	log.Info("ended")
	return failed(err)
}

// check finds what is wrong with the flags.
func (f *helperFlags) check() error {
	for _, p := range f.programs {
		if _, err := filepath.Match(p, ""); err != nil || p == "" {
			return &usageError{fmt.Errorf("--program must be a pattern such as php-fpm* or /opt/php/sbin/php-fpm; got %q", p)}
		}
	}
	if f.listen != "" && !strings.HasPrefix(f.listen, "unix:/") {
		return &usageError{fmt.Errorf(`--listen must be "unix:/path"; got %q`, f.listen)}
	}
	return nil
}

// serve serves the listeners until ctx ends.
func (f *helperFlags) serve(ctx context.Context, listeners []*net.UnixListener, log hclog.Logger) error {
	failures := &helperLog{log: log}
	s := &phpworker.Server{Finder: &phpworker.Local{Programs: f.programs}, Failed: failures.failed}
	errs := make(chan error, len(listeners)) // with room for all: only the first is read
	for _, l := range listeners {
		go func() { errs <- s.Serve(l) }()
	}
	var err error
	select {
	case err = <-errs:
	case <-ctx.Done():
	}
	_, _ = daemon.SdNotify(false, daemon.SdNotifyStopping)
	// Close of the server before that of the listeners, so that Serve takes the error of a closed listener for the end.
	s.Close()
	for _, l := range listeners {
		_ = l.Close()
	}
	return err
}

// listeners returns what to listen on: the sockets that systemd has passed, or the one of --listen.
func (f *helperFlags) listeners() ([]*net.UnixListener, error) {
	if f.listen != "" {
		l, err := listenHelper(strings.TrimPrefix(f.listen, "unix:"))
		if err != nil {
			return nil, err
		}
		return []*net.UnixListener{l}, nil
	}
	var all []*net.UnixListener
	for _, file := range activation.Files(true) {
		l, err := net.FileListener(file)
		_ = file.Close()
		if err != nil {
			return nil, fmt.Errorf("socket %q from systemd: %w", file.Name(), err)
		}
		ul, ok := l.(*net.UnixListener)
		if !ok || l.Addr().Network() != "unixpacket" {
			return nil, fmt.Errorf("socket %q from systemd: it needs ListenSequentialPacket= with a path", file.Name())
		}
		ul.SetUnlinkOnClose(false) // it is systemd's
		all = append(all, ul)
	}
	if len(all) == 0 {
		return nil, errors.New("systemd has passed no socket: start fpm-gate-helper.socket, or give --listen unix:/path")
	}
	return all, nil
}

// listenHelper listens on a path, for the owner and the group of the process. What is left there of a helper that has
// ended is replaced.
func listenHelper(path string) (*net.UnixListener, error) {
	address := &net.UnixAddr{Name: path, Net: "unixpacket"}
	// The kernel refuses a connection to any file, so only a look shows that it is a socket that is in the way.
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() != fs.ModeSocket {
		return nil, fmt.Errorf("listen on %s: %w", path, errNoSocketFile)
	}
	if nc, err := net.DialUnix("unixpacket", nil, address); err == nil {
		_ = nc.Close() // a helper that serves sees a conn that asks for nothing
		return nil, fmt.Errorf("listen on %s: another helper listens there", path)
	} else if errors.Is(err, syscall.ECONNREFUSED) {
		_ = os.Remove(path)
	}
	// The socket has its mode from the start: 0660.
	old := unix.Umask(0o117)
	defer unix.Umask(old)
	l, err := net.ListenUnix("unixpacket", address)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return l, nil
}

// helperLog logs each reason for which workers cannot be looked at, and each only now and then: gates ask again and
// again.
type helperLog struct {
	log hclog.Logger

	mu   sync.Mutex
	last map[string]time.Time // when a reason was logged last
}

// helperLogPause is between two lines of one reason.
const helperLogPause = 10 * time.Minute

// A reason is one of a dozen words, so the map stays small.
func (h *helperLog) failed(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	reason := phpworker.Reason(err)
	if at, ok := h.last[reason]; ok && time.Since(at) < helperLogPause {
		return
	}
	if h.last == nil {
		h.last = make(map[string]time.Time)
	}
	h.last[reason] = time.Now()
	h.log.Warn("a worker cannot be looked at", "reason", reason, "error", err)
}
