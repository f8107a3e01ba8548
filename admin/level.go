package admin

import (
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/hashicorp/go-hclog"
)

// maxLevel bounds the body of PUT /log-level, in bytes.
const maxLevel = 64

// levelHandler shows and sets the log level.
type levelHandler struct{ log hclog.Logger }

// get answers with the level as a word and a line break, as put takes it.
func (h *levelHandler) get(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprintln(w, h.log.GetLevel())
}

// put changes the log level until the next reload, which sets the config's level.
func (h *levelHandler) put(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxLevel))
	if err != nil {
		fail(w, http.StatusBadRequest, "read log level: "+err.Error())
		return
	}
	text := strings.TrimSpace(string(body))
	level := hclog.LevelFromString(text)
	if level == hclog.NoLevel || level == hclog.Off { // off would hide that the level was changed, and all errors
		fail(w, http.StatusBadRequest, fmt.Sprintf("log level must be trace, debug, info, warn or error; got %q", text))
		return
	}
	h.log.SetLevel(level) // a level of warn or error hides the next line, too
	h.log.Info("log level set by an operator until the next reload", "level", level, "client", clientOf(r))
	h.get(w, r)
}
