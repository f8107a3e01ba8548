package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// initOptions are the flags of init.
type initOptions struct {
	file, root     string
	print, observe bool
}

func initCommand() *cobra.Command {
	var o initOptions
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Write a config for the PHP-FPM pools and applications of this machine",
		Long: `Write a config with a gate for each PHP-FPM pool of this machine. It reads PHP-FPM's
pools and php.ini, and the configuration of nginx or Apache, and looks for the files of
known applications in the document roots. It changes nothing but the config, and asks
before it replaces one. What to do next is shown at the end: the line of the web server
to change, as a diff. Run it as root, as some of these files may be readable by root only.`,
		Example: `  fpm-gate init --print
  fpm-gate init --observe`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return failed(initialize(o, cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr()))
		},
	}
	cmd.Flags().StringVarP(&o.file, "config", "c", "/etc/fpm-gate/fpm-gate.hcl", "the config `file` to write")
	_ = cmd.MarkFlagFilename("config", "hcl")
	cmd.Flags().BoolVar(&o.print, "print", false, "print the config and write no file")
	cmd.Flags().BoolVar(&o.observe, "observe", false, "let no request wait at first; count what would have waited")
	cmd.Flags().StringVar(&o.root, "root", "/", "read the configuration of the system in this `folder`")
	_ = cmd.MarkFlagDirname("root")
	return cmd
}

// initialize surveys the machine, writes the config to o.file or to out, and writes to messages what to do next.
func initialize(o initOptions, in io.Reader, out, messages io.Writer) error {
	m := survey(o.root)
	if len(m.pools) == 0 {
		m.writeProblems(messages)
		return fmt.Errorf("found no PHP-FPM pool in %s", strings.Join(m.lookedAt(), ", "))
	}
	text, err := configOf(m.pools, o.file, o.observe)
	if err != nil {
		return err
	}
	if o.print {
		if _, err := io.WriteString(out, text); err != nil {
			return err
		}
	} else if err := writeConfig(o.file, text, in, messages); err != nil {
		return err
	}
	m.writeProblems(messages)
	m.nextSteps(messages, o)
	return nil
}

// errKept is returned when an existing config was not to be replaced.
var errKept = errors.New("kept the existing config; --print shows the new one")

// writeConfig writes the config, whole or not at all. It asks before it replaces a file, whose mode and owner the new
// one gets: a config with a secret in it is readable by the service only.
func writeConfig(file, text string, in io.Reader, messages io.Writer) error {
	old, err := os.Stat(file)
	switch {
	case errors.Is(err, os.ErrNotExist):
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
	case err != nil:
		return err
	case !mayReplace(file, in, messages):
		return errKept
	}
	// It has no rights for others until replace sets those of the old one.
	made := file + ".new"
	if err := os.WriteFile(made, []byte(text), 0o600); err != nil {
		return err
	}
	if err := replace(file, made, old); err != nil {
		_ = os.Remove(made)
		return err
	}
	fmt.Fprintln(messages, "wrote", file)
	return nil
}

// mayReplace asks whether a file may be replaced.
func mayReplace(file string, in io.Reader, messages io.Writer) bool {
	fmt.Fprintf(messages, "%s exists. Replace it? The old one is kept as %[1]s.old. [y/N] ", file)
	answer, _ := bufio.NewReader(in).ReadString('\n')
	fmt.Fprintln(messages)
	answer = strings.ToLower(strings.TrimSpace(answer))
	return answer == "y" || answer == "yes"
}

// replace puts the file made in the place of another one, of which old is the state; nil: there is none.
func replace(file, made string, old os.FileInfo) error {
	mode := os.FileMode(0o644)
	if old != nil {
		mode = old.Mode().Perm()
		if owner, ok := old.Sys().(*syscall.Stat_t); ok {
			if err := os.Chown(made, int(owner.Uid), int(owner.Gid)); err != nil {
				return err
			}
		}
		if err := os.Remove(file + ".old"); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		// A link, not a rename: at each moment there is a config in its place.
		if err := os.Link(file, file+".old"); err != nil {
			return err
		}
	}
	if err := os.Chmod(made, mode); err != nil {
		return err
	}
	return os.Rename(made, file)
}

// writeProblems lists what could not be read, or not be understood.
func (m *machine) writeProblems(w io.Writer) {
	for _, problem := range m.problems {
		fmt.Fprintln(w, "note:", problem)
	}
}

// service is the config that the service serves.
const service = "/etc/fpm-gate/fpm-gate.hcl"

// nextSteps shows what is left to do, in the order in which it works: nothing goes through the gate before it serves.
func (m *machine) nextSteps(w io.Writer, o initOptions) {
	fmt.Fprintf(w, "\nNext:\n\n")
	n := 0
	step := func(format string, args ...any) {
		n++
		fmt.Fprintf(w, "%d. "+format+"\n", append([]any{n}, args...)...)
	}
	command := func(lines ...string) { fmt.Fprintf(w, "\n     %s\n\n", strings.Join(lines, "\n     ")) }
	if o.print {
		step("Write the config above to %s, by fpm-gate init without --print.", o.file)
	}
	check := fmt.Sprintf("fpm-gate check --config %s --probe", o.file)
	for _, p := range m.pools {
		if p.app() != nil && p.app().Format != "" {
			step("Put APP_KEY, and APP_PREVIOUS_KEYS if there are any, from the .env of the application in %s into\n"+
				"   %s, and give that file the mode 0600.", p.apps[0].place, serviceEnv)
			check = fmt.Sprintf("(set -a; . %s; %s)", serviceEnv, check)
		}
	}
	step("Check the config. Mend what it reports, and check again:")
	command(check)
	if m.socket && o.file == service {
		step("Have the service take the config. This also starts it, and no visitor notices:")
		command("systemctl enable --now fpm-gate.socket fpm-gate-helper.socket fpm-gate.service",
			"systemctl restart fpm-gate.service")
	} else {
		step("Start the gate, and have it started with the machine; docs/SERVICE.md has systemd units:")
		command("fpm-gate serve --config " + o.file)
	}
	m.webServerSteps(w, step, command)
	step("Open a page of the site, and see its requests here; to undo it all, undo the change of the web server:")
	command("fpm-gate locks --watch")
}

// serviceEnv has the environment of the service.
const serviceEnv = "/etc/fpm-gate/fpm-gate.env"

// webServerSteps shows how the gate gets its requests.
func (m *machine) webServerSteps(w io.Writer, step func(format string, args ...any), command func(...string)) {
	diff := webDiff(m.root, m.passes, m.pools)
	if diff == "" {
		step("Point the web server to the gate, test its configuration and reload it. In nginx:")
		command(fmt.Sprintf("fastcgi_pass unix:%s;", m.pools[0].socket()))
		return
	}
	step("Change the configuration of the web server so:")
	fmt.Fprintf(w, "\n%s\n", diff)
	step("Test it, and have the web server take it:")
	for _, server := range []struct{ folder, commands string }{
		{"/nginx/", "nginx -t && systemctl reload nginx"},
		{"/apache2/", "apachectl configtest && systemctl reload apache2"},
		{"/httpd/", "apachectl configtest && systemctl reload httpd"},
	} {
		if strings.Contains(diff, server.folder) {
			command(server.commands)
		}
	}
}
