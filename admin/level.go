package admin

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
)

// maxLevel is how long the word that PUT /log-level takes may be.
const maxLevel = 64

func (a *Admin) getLevel(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprintln(w, a.options.Log.GetLevel())
}

// putLevel changes the level of the log until the next reload, which sets that of the config.
func (a *Admin) putLevel(w http.ResponseWriter, r *http.Request) {
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(headTimeout))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxLevel))
	if err != nil {
		fail(w, http.StatusBadRequest, "read the level: "+err.Error())
		return
	}
	text := strings.TrimSpace(string(body))
	level := hclog.LevelFromString(text)
	if level == hclog.NoLevel || level == hclog.Off {
		fail(w, http.StatusBadRequest, fmt.Sprintf("the level must be trace, debug, info, warn or error; got %q", text))
		return
	}
	a.options.Log.SetLevel(level)
	a.options.Log.Info("an operator sets the log level until the next reload", "level", level, "client", clientOf(r))
	a.getLevel(w, r)
}
