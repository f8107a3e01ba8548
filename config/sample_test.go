package config

import (
	"encoding/json"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// sampleExamples are the keys whose values in fpm-gate.hcl are examples, since they have no
// default.
var sampleExamples = []string{"admin.listen", "memcached.servers", "gate.listen", "upstream.address"}

// sampleElsewhere are the keys that the sample documents elsewhere: addresses excludes address, and the lock keys of a
// route are documented in lock.
func sampleElsewhere() []string {
	keys := []string{"upstream.addresses"}
	for _, k := range lockKeys(&Lock{}) {
		keys = append(keys, "route."+k.name)
	}
	return keys
}

func TestSampleLoadsAsItIs(t *testing.T) {
	c, err := Load("fpm-gate.hcl")
	if err != nil {
		t.Fatal(err)
	}
	equal(t, c, parse(t, `
		gate "www" {
		  listen = "unix:/run/fpm-gate/www.sock"
		  upstream { address = "unix:/run/php/php-fpm.sock" }
		}`))
}

func TestSampleLoadsWithEveryKeyUncommented(t *testing.T) {
	c := parse(t, uncommentedSample(t))
	if c.Admin == nil || c.Memcached == nil || len(c.Gates[0].Routes) != 1 {
		t.Errorf("got admin %v, memcached %v, routes %v, want one of each", c.Admin, c.Memcached, c.Gates[0].Routes)
	}
}

// Setting a key to the sample's value must change nothing. Each key must be there once, in the order of the code's
// tables.
func TestSampleSaysWhatTheDefaultsAre(t *testing.T) {
	parsed, diags := hclsyntax.ParseConfig([]byte(uncommentedSample(t)), "fpm-gate.hcl", hcl.InitialPos)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	f := newFile()
	compareSample(t, f, "", f.block(), parsed.Body.(*hclsyntax.Body))
}

func compareSample(t *testing.T, f *file, title string, b block, body *hclsyntax.Body) {
	t.Helper()
	line := 0
	for _, k := range b.keys {
		name := title + "." + k.name
		attr := body.Attributes[k.name]
		switch {
		case attr == nil && slices.Contains(sampleElsewhere(), name):
			continue
		case attr == nil:
			t.Errorf("%s is missing in the sample", name)
			continue
		case attr.SrcRange.Start.Line < line:
			t.Errorf("%s stands in another order than in the code", name)
		}
		line = attr.SrcRange.Start.Line
		v, diags := attr.Expr.Value(nil)
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		before := dump(f.Config)
		if faults := k.set(v); len(faults) > 0 {
			t.Errorf("%s %s", name, faults[0].text)
		}
		if changed := dump(f.Config) != before; changed != slices.Contains(sampleExamples, name) {
			t.Errorf("%s = %s is not the default", name, shown(v))
		}
	}
	for _, c := range b.blocks {
		var found []*hclsyntax.Block
		for _, blk := range body.Blocks {
			if blk.Type == c.name {
				found = append(found, blk)
			}
		}
		if len(found) != 1 {
			t.Errorf("block %s stands %d times in the sample, want once", c.name, len(found))
			continue
		}
		name := ""
		if c.named {
			name = found[0].Labels[0]
		}
		compareSample(t, f, c.name, c.open(name), found[0].Body)
	}
}

// commented matches a key, or the start or end of a block, that is commented out. Prose does
// not look like that.
var commented = regexp.MustCompile(`(?m)^( *)# ([a-z_]+ = ["\[0-9tf].*|[a-z]+( "[a-z]+")? \{|\})$`)

func uncommentedSample(t *testing.T) string {
	t.Helper()
	src, err := os.ReadFile("fpm-gate.hcl")
	if err != nil {
		t.Fatal(err)
	}
	return commented.ReplaceAllString(string(src), "$1$2")
}

func TestSampleExplainsEveryChoice(t *testing.T) {
	src, err := os.ReadFile("fpm-gate.hcl")
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range strings.Fields(`trace debug info warn error text json any files memcached local
		reject pass release abort end headers exclusive read off systemd:NAME addresses FPM-Gate-Release`) {
		if !strings.Contains(string(src), word) {
			t.Errorf("%s is not explained in the sample", word)
		}
	}
}

// dump formats a value with everything that it points to.
func dump(v any) string {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		panic(err)
	}
	return string(b)
}

func TestDefaultsAreWithinTheirBounds(t *testing.T) {
	c := parse(t, gate(""))
	checkInvariants(t, c)
	if reflect.DeepEqual(c.Gates[0].Lock, Lock{}) {
		t.Error("got no defaults of lock")
	}
}
