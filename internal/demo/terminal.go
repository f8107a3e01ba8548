package demo

import (
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// terminalWidth returns how many columns a terminal has, and 0 of what is none or cannot rewrite a line.
func terminalWidth(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("TERM") == "dumb" {
		return 0
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	switch {
	case err != nil:
		return 0
	case size.Col == 0: // it does not know
		return 80
	}
	return int(size.Col)
}

// styleFor returns how text for w is coloured: not at all, unless it is a terminal whose user has nothing against it.
func styleFor(w io.Writer) style {
	return style{colour: terminalWidth(w) > 0 && os.Getenv("NO_COLOR") == ""}
}

// style marks text.
type style struct{ colour bool }

func (s style) bold(text string) string { return s.mark("1", text) }
func (s style) dim(text string) string  { return s.mark("2", text) }
func (s style) good(text string) string { return s.mark("32", text) }
func (s style) bad(text string) string  { return s.mark("31", text) }

func (s style) mark(code, text string) string {
	if !s.colour || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}
