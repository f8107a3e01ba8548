package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
)

// functions are what a value may call, by their names. They read what should not be in the config itself. file calls
// opened with the path of each file that it has read.
func functions(opened func(path string)) map[string]function.Function {
	return map[string]function.Function{
		"env":        env,
		"credential": readingFunction("name", credentialOf),
		"file": readingFunction("path", func(path string) (string, error) {
			text, err := contentOf(path)
			if err == nil {
				opened(path)
			}
			return text, err
		}),
	}
}

// variableName matches the usual names of environment variables.
var variableName = regexp.MustCompile(`^[A-Z_][A-Z0-9_]*$`)

// env is env("NAME") or env("NAME", "default"): an environment variable.
var env = function.New(&function.Spec{
	Params:   []function.Parameter{{Name: "name", Type: cty.String}},
	VarParam: &function.Parameter{Name: "default", Type: cty.String},
	Type:     function.StaticReturnType(cty.String),
	Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
		name, defaults := args[0].AsString(), args[1:]
		if len(defaults) > 1 {
			return cty.NilVal, errors.New("it takes a name and at most one default")
		}
		if value, set := os.LookupEnv(name); set {
			return cty.StringVal(value), nil
		}
		if len(defaults) == 0 {
			if !variableName.MatchString(name) { // name may be the secret itself
				name = "…"
			}
			return cty.NilVal, fmt.Errorf("the environment variable %q is not set, and the call gives no default", name)
		}
		return defaults[0], nil
	},
})

// readingFunction is a function of one argument that reads a text.
func readingFunction(parameter string, read func(string) (string, error)) function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: parameter, Type: cty.String}},
		Type:   function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			text, err := read(args[0].AsString())
			if err != nil {
				return cty.NilVal, err
			}
			return cty.StringVal(text), nil
		},
	})
}

// credentialName matches the names that systemd allows and that an error may show.
var credentialName = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$`)

// credentialOf is credential("NAME"): one that systemd has loaded for the service.
func credentialOf(name string) (string, error) {
	if !credentialName.MatchString(name) {
		return "", errors.New("the name of a credential has letters, digits, dots, dashes and underscores only")
	}
	folder := os.Getenv("CREDENTIALS_DIRECTORY")
	if folder == "" {
		return "", fmt.Errorf("systemd has passed no credentials to this process; "+
			"add LoadCredential=%s:/path to the unit, and use its \"systemctl reload\" to check the config", name)
	}
	text, err := readSecret(filepath.Join(folder, name))
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("systemd has passed no credential %q; add LoadCredential=%[1]s:/path to the unit, and"+
			" restart it", name)
	}
	if err != nil {
		return "", fmt.Errorf("credential %q: %w", name, err)
	}
	return text, nil
}

// contentOf is file("/path"): the content of a file.
func contentOf(path string) (string, error) {
	if !filepath.IsAbs(path) { // perhaps the secret itself
		return "", errors.New("the path must be absolute")
	}
	text, err := readSecret(path)
	if err != nil {
		if folder := filepath.Dir(path); folder == "/" || !isFolder(folder) { // as above
			path = "…"
		}
		return "", fmt.Errorf("%s: %w", path, err)
	}
	return text, nil
}

// isFolder reports whether there is such a folder: then what follows in a path is the name of a file, and no secret.
func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// maxSecret is how long what credential and file read may be, in bytes.
const maxSecret = 64 << 10

// readSecret reads a file without the line break at its end. The error does not name the file.
func readSecret(path string) (string, error) {
	info, err := os.Stat(path) // before it is opened: a FIFO would block
	if err == nil && !info.Mode().IsRegular() {
		return "", errors.New("not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		var step *fs.PathError // always: os.Open returns no other type
		errors.As(err, &step)
		return "", step.Err
	}
	defer f.Close()
	// One byte more, to notice a file that is too long. Its size may change while it is read, as in /proc.
	content, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	switch {
	case err != nil:
		return "", errors.New("it cannot be read")
	case len(content) > maxSecret:
		return "", fmt.Errorf("it is longer than %d bytes", maxSecret)
	case !utf8.Valid(content): // HCL's strings are Unicode, and would change it
		return "", errors.New("it is not text in UTF-8")
	}
	return strings.TrimSuffix(strings.TrimSuffix(string(content), "\n"), "\r"), nil
}
