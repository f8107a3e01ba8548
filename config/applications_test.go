package config

import (
	"cmp"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// appGate returns a gate with these keys in its session block, and these blocks after it.
func appGate(t *testing.T, session, more string) *Gate {
	t.Helper()
	return parse(t, gate("session {\n"+session+"\n}\n"+more)).Gates[0]
}

const someKey = `keys = ["base64:AAECAwQFBgcICQoLDA0ODw=="]`

func TestEachApplicationIsAConfig(t *testing.T) {
	for _, a := range Applications() {
		keys := ""
		if a.Format == FormatLaravel {
			keys = "\n" + someKey
		}
		g := appGate(t, `application = "`+a.Name+`"`+keys, "")
		s := g.Session
		if s.Application != a.Name || !slices.Equal(s.Cookies, a.Cookies) || s.Locks != a.Locks ||
			s.LocksGiven != a.OwnSessions || s.Reopens != a.Reopens {
			t.Errorf("%s: got %+v", a.Name, s)
		}
		if got := s.IDPattern != nil && s.IDPattern.String() == a.IDPattern; got != (a.IDPattern != "") {
			t.Errorf("%s: got id_pattern %v, want %q", a.Name, s.IDPattern, a.IDPattern)
		}
		if want := cmp.Or(a.ReleaseOn, ReleaseOnClose); g.Lock.ReleaseOn != want {
			t.Errorf("%s: got release_on %q, want %q", a.Name, g.Lock.ReleaseOn, want)
		}
		if len(a.Marks) == 0 {
			t.Errorf("%s has no mark by which it is found", a.Name)
		}
	}
	if names := applicationNames(); !slices.IsSorted(names) {
		t.Errorf("got the order %v", names)
	}
}

// TestWhatTheFileSetsWins sets each key that an application sets, before and after it.
func TestWhatTheFileSetsWins(t *testing.T) {
	const own = `cookies = ["mine"]
		id_pattern = "x"
		locks = false
		` + someKey
	for _, session := range []string{"application = \"laravel\"\n" + own, own + "\napplication = \"laravel\""} {
		g := appGate(t, session, `lock { release_on = "end" }`)
		s := g.Session
		if s.Cookies[0] != "mine" || s.IDPattern.String() != "x" || s.Format != FormatLaravel || g.Lock.ReleaseOn != ReleaseOnEnd {
			t.Errorf("got %+v, release_on %s", s, g.Lock.ReleaseOn)
		}
	}
	g := appGate(t, "application = \"laravel\"\n"+someKey, `route "x" { path = ["/x"] }`)
	if g.Lock.ReleaseOn != ReleaseOnHeaders || g.Routes[0].Lock.ReleaseOn != ReleaseOnHeaders {
		t.Errorf("got release_on %s, and %s in a route, want headers", g.Lock.ReleaseOn, g.Routes[0].Lock.ReleaseOn)
	}
	if g := appGate(t, "application = \"joomla\"\nid_pattern = \"\"\ncookies = [\"a\"]", ""); g.Session.IDPattern != nil {
		t.Errorf(`id_pattern = "": got %v, want none`, g.Session.IDPattern)
	}
	if g := appGate(t, "application = \"moodle\"\nlocks = false", ""); g.Session.Locks {
		t.Error("locks = false: got true")
	}
}

// TestIDsOfApplications takes cookies as the applications write them, and ones that are no session's.
func TestIDsOfApplications(t *testing.T) {
	const phpSession = "q9d0k2v5s1n7m3j8h4g6f5d2a1"
	for _, c := range []struct{ app, value, want string }{
		{"woocommerce", "t_0123456789abcdef0123456789abcd||1700000000||1699990000||0123456789abcdef0123456789abcdef",
			"t_0123456789abcdef0123456789abcd"},
		{"woocommerce", "17||1700000000||1699990000||0123456789abcdef0123456789abcdef",
			"17||1700000000||1699990000||0123456789abcdef0123456789abcdef"},
		{"woocommerce", "t_||x", "t_||x"},
		{"wordpress", "John Doe|1700000000|Abcdefghij0123456789Abcdefghij0123456789Abc|0123456789abcdef",
			"Abcdefghij0123456789Abcdefghij0123456789Abc"},
		{"wordpress", phpSession, phpSession},
		{"wordpress", "John|1|x", ""},
		{"joomla", phpSession, phpSession},
		{"joomla", "en-GB", ""},
		{"mediawiki", "abcdefghijklmnopqrstuvwxyz012345", "abcdefghijklmnopqrstuvwxyz012345"},
		{"mediawiki", "1", ""},
		{"nextcloud", phpSession, phpSession},
	} {
		for _, a := range Applications() {
			if a.Name != c.app {
				continue
			}
			got := ""
			if m := regexp.MustCompile(a.IDPattern).FindStringSubmatch(c.value); m != nil {
				got = m[len(m)-1]
			}
			if got != c.want {
				t.Errorf("%s: %q has the id %q, want %q", c.app, c.value, got, c.want)
			}
		}
	}
}

// TestSuggest takes the names that real sites have.
func TestSuggest(t *testing.T) {
	for names, want := range map[string]string{
		"adminer_sid adminer_key adminer_permanent":                    `"adminer"`,
		"Cacti CactiTimeZone":                                          `"cacti"`,
		"Icingaweb2 icingaweb2-tzo":                                    `"icingaweb2"`,
		"SSESS0123456789abcdef0123456789abcdef":                        `"drupal"`,
		"_ga 0123456789abcdef0123456789abcdef":                         `"joomla"`,
		"XSRF-TOKEN my_shop-session":                                   `"laravel"`,
		"my_session":                                                   `"laravel" or "mediawiki"`,
		"5d89dac18813e15aa2f75788275e3588":                             `"joomla" or "phpldapadmin"`,
		"MoodleSession":                                                `"moodle"`,
		"MOODLEID1_ MoodleSessionwww":                                  `"moodle"`,
		"oc0a1b2c3d4e oc_sessionPassphrase":                            `"nextcloud"`,
		"phpMyAdmin_https pma_lang_https":                              `"phpmyadmin"`,
		"PrestaShop-0123456789abcdef0123456789abcdef":                  `"prestashop"`,
		"roundcube_sessid roundcube_sessauth":                          `"roundcube"`,
		"fe_typo_user":                                                 `"typo3"`,
		"wordpress_logged_in_0a wp_woocommerce_session_0a wp-settings": `"woocommerce" or "wordpress"`,
		"oc_sessionPassphrase":                                         "",
		"_ga theme admin PHPSESSID":                                    "",
		"this-cookie-is-as-long-as-a-hash":                             "",
	} {
		if want != "" {
			want = "application = " + want
		}
		if got := Suggest(strings.Fields(names)); got != want {
			t.Errorf("%s: got %q, want %q", names, got, want)
		}
	}
}

func TestKeysOfLaravel(t *testing.T) {
	const one, two = "base64:AAECAwQFBgcICQoLDA0ODw==", "base64:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	for _, c := range []struct {
		list string
		want []int // lengths
	}{
		{`"` + one + `"`, []int{16}},
		{`"` + one + `", "` + two + `"`, []int{16, 32}},
		{`"` + one + "," + two + `", ""`, []int{16, 32}},
		{`"` + one + " ," + two + `,"`, []int{16, 32}},
		{`"sixteen,letters."`, []int{16}},
		{`"two-and-thirty letters, in a key"`, []int{32}},
		{`env("FPM_GATE_TEST_KEY")`, []int{32}},
		{`env("FPM_GATE_TEST_NO_KEY", ""), "` + one + `"`, []int{16}},
	} {
		t.Setenv("FPM_GATE_TEST_KEY", two)
		var got []int
		for _, k := range appGate(t, `format = "laravel"`+"\nkeys = ["+c.list+"]", "").Session.Keys {
			got = append(got, len(k))
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("keys = [%s]: got lengths %v, want %v", c.list, got, c.want)
		}
	}
}

// A key in base64 is never taken for one without, however long it is.
func TestKeysOfLaravelThatAreNone(t *testing.T) {
	for _, key := range []string{"base64:" + strings.Repeat("!", 9), "base64:" + strings.Repeat("!", 25), "base64:", "short", ","} {
		_, err := Parse([]byte(gate("session {\nformat = \"laravel\"\nkeys = [\""+key+"\"]\n}")), "test.hcl")
		if err == nil {
			t.Errorf("keys = [%q]: got no error", key)
		}
	}
}

// TestNoReportShowsAKey puts a key into each place of a file where it may go wrong.
func TestNoReportShowsAKey(t *testing.T) {
	const key = "c2VjcmV0"
	for _, session := range []string{
		`keys = ["base64:` + key + `"]`,
		`keys = "base64:` + key + `"`,
		"keys = [\n\"base64:" + key + "\",\n]",
		"keys = [\n\"base64:" + key + "\n]",
		`keys = ["` + key + `", {}]`,
		`key = ["` + key + `"]`,
		`keys = [env("` + key + `")]`,
		`id_patern = "` + key + `"`,
	} {
		_, err := Parse([]byte(gate("session {\napplication = \"laravel\"\n"+session+"\n}")), "test.hcl")
		wrong, ok := err.(*Error)
		if !ok {
			t.Errorf("%s: got error %v, want a report", session, err)
			continue
		}
		var text strings.Builder
		_ = wrong.Write(&text, 100, false)
		if said := text.String() + wrong.Error() + strings.Join(wrong.Lines(), "\n"); strings.Contains(said, key) {
			t.Errorf("%s: the report shows the key:\n%s", session, said)
		}
	}
}

// TestTheLinesOfTheDocumentAreConfigs parses each of its examples.
func TestTheLinesOfTheDocumentAreConfigs(t *testing.T) {
	t.Setenv("APP_KEY", "0123456789abcdef")
	text, err := os.ReadFile("../docs/APPLICATIONS.md")
	if err != nil {
		t.Fatal(err)
	}
	examples := regexp.MustCompile("(?s)```hcl\n(.*?)```").FindAllSubmatch(text, -1)
	if len(examples) < len(applications) {
		t.Errorf("found %d examples, want one of each application", len(examples))
	}
	for _, example := range examples {
		if warnings := parse(t, gate(string(example[1]))).Warnings.Lines(); len(warnings) > 0 {
			t.Errorf("%s: got the warnings %q", example[1], warnings)
		}
	}
}

// TestEachApplicationHasItsSection holds the document to the table.
func TestEachApplicationHasItsSection(t *testing.T) {
	text, err := os.ReadFile("../docs/APPLICATIONS.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range Applications() {
		if !strings.Contains(string(text), `application = "`+a.Name+`"`) {
			t.Errorf("docs/APPLICATIONS.md does not show application = %q", a.Name)
		}
	}
}
