package config

import (
	"errors"
	"fmt"
	"os"
	"regexp"

	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
)

// variableName matches the usual names of environment variables.
var variableName = regexp.MustCompile(`^[A-Z_][A-Z0-9_]*$`)

// env is the only function in a config: env("NAME") or env("NAME", "default").
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
