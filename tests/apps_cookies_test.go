package tests

import (
	"fmt"
	"testing"

	"github.com/fpm-gate/fpm-gate/internal/rig"
)

// TestCookiesOfApplicationsMeetInOneLock sends cookies as the applications write them, which Debian does not have.
func TestCookiesOfApplicationsMeetInOneLock(t *testing.T) {
	const hash = "0123456789abcdef0123456789abcdef"
	guest := "t_" + hash[:30]
	for name, c := range map[string]struct {
		app, one, two string
		same          bool
	}{
		"a guest of WooCommerce, after a new expiry": {"woocommerce",
			"wp_woocommerce_session_" + hash + "=" + guest + "%7C%7C1700000000%7C%7C1699990000%7C%7Cfeed",
			"wp_woocommerce_session_" + hash + "=" + guest + "%7C%7C1800000000%7C%7C1799990000%7C%7Cbeef", true},
		"a customer of WooCommerce, by the number alone": {"woocommerce",
			"wp_woocommerce_session_" + hash + "=17%7C%7C1700000000%7C%7C1699990000%7C%7Cfeed",
			"wp_woocommerce_session_" + hash + "=17%7C%7C1%7C%7C1%7C%7Cmadeup", false},
		"Drupal, of HTTPS before that of HTTP": {"drupal",
			"SESS" + hash + "=first; SSESS" + hash + "=SecretOfAVisitorD", "SSESS" + hash + "=SecretOfAVisitorD", true},
		"Joomla, with its language": {"joomla",
			hash + "=en-GB; f" + hash[1:] + "=SecretOfAVisitorJoomla", "f" + hash[1:] + "=SecretOfAVisitorJoomla", true},
		"Nextcloud, among its others": {"nextcloud",
			"oc_sessionPassphrase=x; oc0a1b2c3d4e=SecretOfAVisitorNextcloud", "oc0a1b2c3d4e=SecretOfAVisitorNextcloud", true},
		"Moodle with a suffix": {"moodle", "MoodleSessionshop=SecretOfAVisitorM; MOODLEID1_=x", "MoodleSessionshop=SecretOfAVisitorM", true},
		"two visitors":         {"moodle", "MoodleSession=SecretOfAVisitorA", "MoodleSession=SecretOfAVisitorB", false},
		"an editor of TYPO3":   {"typo3", "fe_typo_user=x; be_typo_user=ey.J9.x", "be_typo_user=ey.J9.x; fe_typo_user=y", true},
		"PrestaShop, changed":  {"prestashop", "PrestaShop-" + hash + "=def50200aa", "PrestaShop-" + hash + "=def50200bb", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStack(t, stackOptions{Gate: rig.GateOptions{Settings: fmt.Sprintf("session { application = %q }", c.app)}})
			key := func(cookie string) string {
				q := request{path: "/info.php?session=0", header: map[string]string{"Cookie": cookie}}
				return s.info(t, q).Gate["FPM_GATE_KEY"]
			}
			one, two := key(c.one), key(c.two)
			if one == "" || two == "" || (one == two) != c.same {
				t.Errorf("got the keys %q and %q, want the same: %v", one, two, c.same)
			}
		})
	}
}
