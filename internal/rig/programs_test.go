package rig

import (
	"os"
	"regexp"
	"testing"
)

func TestInstallDepsKnowsAllThatTheRigFinds(t *testing.T) {
	script, err := os.ReadFile("../../scripts/install-deps")
	if err != nil {
		t.Fatal(err)
	}
	for name, p := range programs {
		if !regexp.MustCompile(`(?m)^    need ` + regexp.QuoteMeta(p.pkg) + ` `).Match(script) {
			t.Errorf("scripts/install-deps does not install %s, which has %s in it", p.pkg, name)
		}
	}
}
