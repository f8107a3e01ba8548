package config

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Application is what is known of the sessions of an application that many run. The key application of a session block
// makes its fields the defaults of the gate.
type Application struct {
	Name string

	Cookies   []string // names and patterns
	IDPattern string   // "": the whole value
	Format    string   // "": plain
	Locks     bool     // its OwnSessions are locked by itself
	ReleaseOn string   // "": the default
	Reopens   bool     // its scripts open the session again after they have closed it

	// OwnSessions: its sessions are no sessions of PHP's, or have other ids than the cookie, so PHP's handler must not
	// be watched for them, and Locks counts for them.
	OwnSessions bool

	// Marks are files that only this application has, relative to its document root or, where they begin with "../",
	// next to it. One is enough.
	Marks []string
}

// Applications returns all that is known, sorted by name but that what runs within another one comes before it.
func Applications() []Application { return slices.Clone(applications) }

// phpID is what PHP makes of session ids: session.sid_length is 22 at least.
const phpID = `^[A-Za-z0-9,-]{22,}$`

// applications is the table. The file that a comment names is of the application's own repository;
// docs/APPLICATIONS.md describes what goes wrong in each without a gate.
var applications = []Application{
	// adminer/include/bootstrap.inc.php: the name. auth.inc.php ends the session before a statement is run, and
	// restart_session in functions.inc.php opens it again to save the statement.
	{Name: "adminer", Reopens: true, Cookies: []string{"adminer_sid"},
		// Not adminer.php: some have that next to another application.
		Marks: []string{"adminer/include/auth.inc.php", "../adminer/include/auth.inc.php"}},

	// include/global.php: $cacti_session_name, PHP's own session or, with $cacti_db_session, the database without a
	// lock (include/session.php). cacti_session_close in lib/functions.php ends it before a graph is drawn;
	// raise_message opens it again.
	{Name: "cacti", Reopens: true, Cookies: []string{"Cacti"},
		Marks: []string{"include/cacti_version"}},

	// lib/Drupal/Core/Session/SessionConfiguration.php: SSESS with HTTPS, SESS without, and 32 digits of a SHA-256 of
	// the host. Sessions are in the database, without a lock. A browser sends the cookie of the HTTP site to the HTTPS
	// site too, so SSESS goes first.
	{Name: "drupal", OwnSessions: true, Cookies: []string{"SSESS*", "SESS*"},
		Marks: []string{"core/lib/Drupal.php", "includes/bootstrap.inc"}},

	// library/Icinga/Web/Session/PhpSession.php: the name; read closes PHP's session at once, and write opens it again
	// and sets all values that were read. So its lock has to last until the script ends, whatever PHP locks.
	{Name: "icingaweb2", Cookies: []string{"Icingaweb2"}, ReleaseOn: ReleaseOnEnd,
		Marks: []string{"../application/forms/Dashboard/DashletForm.php"}},

	// libraries/src/Service/Provider/Session.php and libraries/src/Application/ApplicationHelper.php, getHash: the
	// name is an MD5 of a secret. So is the name of the cookie with the language, whose value is no session id.
	{Name: "joomla", OwnSessions: true, Cookies: []string{strings.Repeat("?", 32)}, IDPattern: phpID,
		Marks: []string{"administrator/components/com_admin/admin.xml", "libraries/src/Factory.php"}},

	// config/session.php: the name is made of APP_NAME, with _session or, since version 12, -session after it. A
	// cookie of another name does not open. src/Illuminate/Session/Middleware/StartSession.php saves the session
	// before the response is sent, so its lock may end with the headers.
	{Name: "laravel", OwnSessions: true, Cookies: []string{"*_session", "*-session"},
		Format: FormatLaravel, ReleaseOn: ReleaseOnHeaders,
		Marks: []string{"../artisan", "artisan"}},

	// app/code/Magento/Backend/Model/Session/AdminConfig.php: admin in the back office, whose cookie has its path;
	// else session.name.
	{Name: "magento", Cookies: []string{"admin", "PHPSESSID"},
		Marks: []string{"../bin/magento", "bin/magento"}},

	// includes/session/CookieSessionProvider.php: $wgSessionName, or else $wgCookiePrefix and _session.
	// includes/session/SessionManager.php, validateSessionId, has the form of the id.
	{Name: "mediawiki", OwnSessions: true, Cookies: []string{"*_session"}, IDPattern: `^[A-Za-z0-9_-]{32,}$`,
		Marks: []string{"includes/WebStart.php"}},

	// lib/classes/session/manager.php, prepare_cookies: the name ends in $CFG->sessioncookie. Its handlers for the
	// database, Redis, Memcached and files lock.
	{Name: "moodle", OwnSessions: true, Cookies: []string{"MoodleSession*"}, Locks: true,
		Marks: []string{"lib/moodlelib.php"}},

	// lib/private/legacy/OC_Util.php, getInstanceId, which lib/base.php makes the name of the session: oc and ten
	// letters and digits. The other cookies that begin with oc are longer.
	{Name: "nextcloud", Cookies: []string{"oc??????????"}, IDPattern: phpID,
		Marks: []string{"lib/versioncheck.php"}},

	// lib/session_functions.php: the name is the MD5 of "phpLDAPadmin". A script keeps its session open to its end.
	{Name: "phpldapadmin", Cookies: []string{"5d89dac18813e15aa2f75788275e3588"},
		Marks: []string{"../lib/ds_ldap_pla.php", "lib/ds_ldap_pla.php"}},

	// libraries/classes/Session.php and Config.php, getCookieName: with HTTPS the name ends in _https.
	// index.php closes the session for long statements, and opens it again to save what it has noted.
	{Name: "phpmyadmin", Reopens: true, Cookies: []string{"phpMyAdmin_https", "phpMyAdmin"},
		Marks: []string{"libraries/classes/Core.php", "libraries/classes/Config.php"}},

	// classes/Cookie.php: the cookie is the session, encrypted, and changes with its content. So the whole value is
	// the id until then, and a browser whose request has waited is sent back for the new one (on_rotation).
	{Name: "prestashop", OwnSessions: true, Cookies: []string{"PrestaShop-*"},
		Marks: []string{"classes/PrestaShopAutoload.php", "config/smartyfront.config.inc.php"}},

	// program/lib/Roundcube/rcube.php: session_name. Sessions are in the database, without a lock. roundcube_sessauth
	// changes every few minutes and is no id.
	{Name: "roundcube", OwnSessions: true, Cookies: []string{"roundcube_sessid"},
		Marks: []string{"program/include/rcmail.php", "../program/include/rcmail.php"}},

	// Symfony/Component/HttpFoundation/Session/Storage/NativeSessionStorage.php: PHP's own session, with session.name
	// unless framework.session.name says otherwise. Its handler for PDO locks; those for Redis, Memcached
	// and MongoDB do not.
	{Name: "symfony", Cookies: []string{"PHPSESSID"},
		Marks: []string{"../config/bundles.php"}},

	// typo3/sysext/core/Classes/Authentication/{Backend,Frontend}UserAuthentication.php: the names.
	// typo3/sysext/core/Classes/Session/UserSession.php: since version 12 the value is a JWT, which stays the same
	// until the session gets another id.
	{Name: "typo3", OwnSessions: true, Cookies: []string{"be_typo_user", "fe_typo_user"},
		Marks: []string{"typo3/sysext/core/composer.json", "../vendor/typo3/cms-core/composer.json"}},

	// plugins/woocommerce/includes/class-wc-session-handler.php: the id of the customer, two times and a hash. A
	// guest's id is random. A customer's is a number, so the whole value is taken: by the number alone anyone could
	// hold the locks of others.
	{Name: "woocommerce", OwnSessions: true, Cookies: []string{"wp_woocommerce_session_*"},
		IDPattern: `^(t_[0-9a-f]{20,}|.+)`,
		Marks:     []string{"wp-content/plugins/woocommerce/woocommerce.php"}},

	// wp-includes/default-constants.php and pluggable.php, wp_generate_auth_cookie: name, time, token and hash; the
	// token is the id. WordPress itself has no PHP session, but its plugins may.
	{Name: "wordpress", OwnSessions: true, Cookies: []string{"PHPSESSID", "wordpress_logged_in_*"},
		IDPattern: `^(?:[^|]+\|[0-9]+\|)?([A-Za-z0-9,-]{22,})`,
		Marks:     []string{"wp-includes/version.php"}},
}

// applicationNames are the names of all.
func applicationNames() (names []string) {
	for _, a := range applications {
		names = append(names, a.Name)
	}
	return names
}

// apply makes what is known of the application of that name the defaults of g.
func apply(name string, g *Gate) {
	i := slices.IndexFunc(applications, func(a Application) bool { return a.Name == name })
	if i < 0 {
		return
	}
	a, s := applications[i], &g.Session
	s.Cookies, s.Reopens = slices.Clone(a.Cookies), a.Reopens
	s.Locks, s.LocksGiven = a.Locks, a.OwnSessions
	if a.Format != "" {
		s.Format = a.Format
	}
	if a.IDPattern != "" {
		s.IDPattern = regexp.MustCompile(a.IDPattern)
	}
	if a.ReleaseOn != "" {
		g.Lock.ReleaseOn = a.ReleaseOn
	}
}

// Suggest returns what a session block could say of a site with cookies of these names: application = "…", or several
// to choose from. It returns "" if they are no known application's.
func Suggest(names []string) string {
	var fitting []string
	for _, a := range applications {
		if slices.ContainsFunc(names, a.leavesCookie) {
			fitting = append(fitting, strconv.Quote(a.Name))
		}
	}
	if len(fitting) == 0 {
		return ""
	}
	return "application = " + alternatives(fitting)
}

// leavesCookie reports whether a session cookie of the application may have that name, unless many others may, too.
func (a Application) leavesCookie(name string) bool {
	return slices.ContainsFunc(a.Cookies, func(pattern string) bool {
		if pattern == "PHPSESSID" || pattern == "admin" {
			return false
		}
		expr := strings.NewReplacer(`\*`, ".*", `\?`, "[0-9a-z]").Replace(regexp.QuoteMeta(pattern))
		return regexp.MustCompile("^" + expr + "$").MatchString(name)
	})
}
