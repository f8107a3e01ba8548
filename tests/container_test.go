package tests

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/rig"
	"github.com/fpm-gate/fpm-gate/internal/rig/rigtest"
)

// engine is a podman with storage of its own, in the test's folder.
type engine struct {
	t     *testing.T
	dir   string
	image string
}

// newEngine returns an engine that has the image which `make image` builds.
func newEngine(t *testing.T) *engine {
	t.Helper()
	rigtest.NeedRoot(t, "containers are run as root here")
	if out, err := exec.Command("unshare", "--mount", "--pid", "--uts", "--ipc", "--net", "--fork", "true").CombinedOutput(); err != nil {
		rigtest.Lack(t, fmt.Sprintf("namespaces cannot be made here: %v: %s", err, out))
	}
	// Not in t.TempDir: the engine's mounts below it end a moment after its containers.
	dir, err := os.MkdirTemp("", "fpm-gate-podman")
	if err != nil {
		t.Fatal(err)
	}
	e := &engine{t: t, dir: dir}
	t.Cleanup(func() {
		_ = e.command("unmount", "--all").Run()
		_ = os.RemoveAll(dir)
	})
	build := exec.Command("../packaging/image/build", dir)
	build.Env = append(os.Environ(), "VERSION=tested")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the image: %v\n%s", err, out)
	}
	archives, _ := filepath.Glob(filepath.Join(dir, "*.oci.tar"))
	if len(archives) != 1 {
		t.Fatalf("got the archives %q, want one", archives)
	}
	e.must("load", "--input", archives[0])
	e.image = strings.TrimSpace(e.must("images", "--quiet"))
	return e
}

// command is one of podman's. runc also runs where control groups of both versions are mounted.
func (e *engine) command(args ...string) *exec.Cmd {
	state := []string{
		"--root", filepath.Join(e.dir, "storage"), "--runroot", filepath.Join(e.dir, "run"),
		"--tmpdir", filepath.Join(e.dir, "tmp"), "--storage-driver", "vfs", "--runtime", "runc",
		"--cgroup-manager", "cgroupfs", "--events-backend", "none",
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	e.t.Cleanup(cancel)
	return exec.CommandContext(ctx, "podman", append(state, args...)...)
}

// must runs a command and returns its output.
func (e *engine) must(args ...string) string {
	e.t.Helper()
	var stdout, stderr bytes.Buffer
	c := e.command(args...)
	c.Stdout, c.Stderr = &stdout, &stderr
	if err := c.Run(); err != nil {
		e.t.Fatalf("podman %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return stdout.String()
}

// gate starts a container of the image as a pod would: next to PHP-FPM, in its network, with a folder for the sockets
// that the web server shares. It returns the socket's address.
func (e *engine) gate(t *testing.T, name string, php rig.Addr) rig.Addr {
	t.Helper()
	sockets := filepath.Join(e.dir, name)
	if err := os.Mkdir(sockets, 0o777); err != nil {
		t.Fatal(err)
	}
	_ = os.Chmod(sockets, 0o777) // as an emptyDir is
	_ = os.Chmod(e.dir, 0o755)
	e.must("run", "--detach", "--name", name, "--network", "host", "--read-only", "--cap-drop", "all",
		"--security-opt", "no-new-privileges", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024",
		"--log-driver", "k8s-file", "--log-opt", "path="+filepath.Join(e.dir, name+".log"),
		"--env", "FPM_GATE_UPSTREAM="+php.String(), "--volume", sockets+":/run/fpm-gate", e.image)
	t.Cleanup(func() {
		_ = e.command("rm", "--force", "--time", "1", name).Run()
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(e.dir, name+".log"))
			t.Logf("the log of %s:\n%s", name, log)
		}
	})
	eventually(t, name+" is alive", func() bool { return e.command("exec", name, "/fpm-gate", "health", "--live").Run() == nil })
	return rig.Addr{Network: "unix", Address: filepath.Join(sockets, "www.sock")}
}

// health runs the probe of a container's readiness. podman adds warnings of its own to what goes to stderr.
func (e *engine) health(name string) (stdout, stderr string, err error) {
	c := e.command("exec", name, "/fpm-gate", "health")
	var out, errs strings.Builder
	c.Stdout, c.Stderr = &out, &errs
	err = c.Run()
	return out.String(), errs.String(), err
}

// pods starts a PHP-FPM, and a gate in a container with an nginx of its own for each name.
func (e *engine) pods(t *testing.T, names ...string) (*rig.Rig, *rig.PHPFPM, []*rig.Site) {
	t.Helper()
	r := newRig(t)
	php := rigtest.Start(t, r.PHPFPM, rig.PHPOptions{Listen: rig.TCP, Workers: 8})
	var sites []*rig.Site
	for _, name := range names {
		site := &rig.Site{FastCGI: e.gate(t, name, php.Addr)}
		rigtest.Start(t, r.Nginx, rig.NginxOptions{Sites: []*rig.Site{site}})
		sites = append(sites, site)
	}
	return r, php, sites
}

func TestContainerImage(t *testing.T) {
	t.Parallel()
	rigtest.Need(t, "nginx", "php-fpm", "podman", "runc")
	e := newEngine(t)
	t.Run("serves, and reports its health", e.serves)
	t.Run("a rolling stop loses no request", e.rolls)
}

func (e *engine) serves(t *testing.T) {
	_, php, sites := e.pods(t, "gate")
	if out, errs, err := e.health("gate"); err != nil || out != "ok\n" {
		t.Errorf("health: got %q, %q, %v, want ok", out, errs, err)
	}
	if answer := ask(sites[0], request{path: "/who.php", session: newSession()}); !holds(answer) {
		t.Errorf("got %q, want a script that holds its session", answer.body)
	}

	shown := e.must("image", "inspect", "--format", "{{.Config.User}} {{.Config.StopSignal}} {{.Size}}", e.image)
	if !regexp.MustCompile(`^65532:65532 SIGQUIT 1\d{7}\n$`).MatchString(shown) {
		t.Errorf("the image is %q, want user 65532, SIGQUIT, and less than 20 MB", shown)
	}

	if err := php.Stop(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the probe names what is missing", func() bool {
		_, errs, err := e.health("gate")
		return err != nil && strings.Contains(errs, "not ready: gate \"www\": upstream "+php.Addr.String())
	})
}

// holds reports whether an answer of who.php comes from a script that holds its session.
func holds(answer response) bool {
	return answer.failure() == nil && strings.Contains(answer.body, `"lock":"held"`)
}

// rolls replaces a container while clients never pause, as a deployment does: requests go to the new pod first, and then
// the engine stops the old one.
func (e *engine) rolls(t *testing.T) {
	r, _, sites := e.pods(t, "old", "new")
	var current atomic.Pointer[rig.Site]
	current.Store(sites[0])
	long := begin(sites[0], request{path: "/wait.php?session=1&mark=long", session: newSession()})
	awaitMark(t, r, "long.started")

	const clients, least = 6, 40
	var served atomic.Int64
	var load sync.WaitGroup
	enough := make(chan struct{})
	for range clients {
		session := newSession()
		load.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-enough:
					return
				default:
				}
				q := request{path: "/who.php", session: session}
				if i%2 == 1 {
					q.method, q.body = "POST", strings.NewReader("a=b")
				}
				if answer := ask(current.Load(), q); !holds(answer) {
					t.Errorf("request %d of a client: %v: %q", i, answer.failure(), answer.body)
					return
				}
				served.Add(1)
			}
		})
	}
	eventually(t, "the old one serves", func() bool { return served.Load() > least })
	current.Store(sites[1])
	stop := e.command("stop", "--time", "40", "old")
	if err := stop.Start(); err != nil {
		t.Fatal(err)
	}
	before := served.Load()
	eventually(t, "the new one serves", func() bool { return served.Load() > before+least })
	letGo(t, r, "long")
	(<-long).mustBe(t, "last\n")
	if err := stop.Wait(); err != nil {
		t.Errorf("podman stop: %v", err)
	}
	close(enough)
	load.Wait()
	if code := strings.TrimSpace(e.must("inspect", "--format", "{{.State.ExitCode}}", "old")); code != "0" {
		t.Errorf("the old container's exit code is %s, want 0", code)
	}
	if r := ask(sites[0], request{path: "/who.php"}); r.status != http.StatusBadGateway {
		t.Errorf("the old socket answers with %d, want nginx's 502", r.status)
	}
}
