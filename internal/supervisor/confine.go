package supervisor

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/hashicorp/go-hclog"

	"github.com/fpm-gate/fpm-gate/config"
	"github.com/fpm-gate/fpm-gate/internal/landlock"
)

// confinement leaves to the process only the files and folders that the config of its start needs. It can never be made
// wider: a reload that needs more fails.
type confinement struct {
	env Confiner
	log hclog.Logger

	wanted   bool           // the config of the start has landlock = true
	confined bool           // to rules; else this process may open all that its user may
	rules    landlock.Rules // what this process may open
}

// begin confines the process, which serves c already. What keeps it from that is logged, and has no other effect. It is
// called once, before the first reload.
func (f *confinement) begin(c *config.Config) {
	f.wanted = c.Landlock
	if !c.Landlock {
		return
	}
	version, err := f.env.LandlockVersion()
	if err != nil {
		f.log.Debug("no Landlock: all files that this user may open are within reach", "error", err)
		return
	}
	if f.env.Traces() {
		f.log.Info("no Landlock: a restricted process cannot look at PHP-FPM's workers; fpm-gate helper could for it")
		return
	}
	rules := f.env.Rules(c)
	switch err := f.env.Confine(rules); {
	case errors.Is(err, landlock.ErrCgo):
		f.log.Debug("no Landlock", "error", err)
	case err != nil:
		f.log.Warn("no Landlock: all files that this user may open are within reach", "error", err)
	default:
		f.rules, f.confined = rules, true
		f.log.Info("this process can open only what its config names", "landlock", version)
	}
}

// reach returns an error if c needs what this process may not open.
func (f *confinement) reach(c *config.Config) error {
	if !f.confined {
		return nil
	}
	var all []string
	for _, r := range f.rules.Beyond(f.env.Rules(c)) {
		all = append(all, r.Path)
	}
	if all == nil {
		return nil
	}
	return fmt.Errorf("%s: not within reach, as the config of the start did not name it; restart fpm-gate, or set"+
		" landlock = false and restart it once", strings.Join(all, ", "))
}

// explain logs what to do if this process may have been denied what err is about because it is confined.
func (f *confinement) explain(err error) {
	if f.confined && strings.Contains(err.Error(), syscall.EACCES.Error()) { // of a config.Error there is only text
		f.log.Error("this process can open only what the config of its start named; restart it for a file elsewhere")
	}
}

// warn warns if a reload changes whether the process is to be confined, which it cannot.
func (f *confinement) warn(c *config.Config) {
	if c.Landlock != f.wanted {
		f.log.Warn("a change of landlock takes a restart", "landlock", c.Landlock)
	}
}
