<?php
// giveback.php?mark=M&how=HOW: opens its session, counts in it, makes marks/M.open and waits for marks/M.give. Then it
// gives its session back, makes marks/M.closed and works on until marks/M.go is there; it makes marks/M.ended at last.
// HOW is close, abort, destroy, renew, replace (a new id, the old session stays), finish (fastcgi_finish_request), or
// again (close, and open it once more after marks/M.go, until marks/M.end).
ignore_user_abort(true);
$mark = __DIR__ . '/marks/' . basename($_GET['mark']);
$await = function (string $what) use ($mark) {
    for ($i = 0; $i < 30000 && !file_exists("$mark.$what"); $i++) {
        usleep(2000);
        clearstatcache();
    }
};
session_start();
$_SESSION['count'] = ($_SESSION['count'] ?? 0) + 1;
header('Content-Type: text/plain');
echo "given back\n";
touch("$mark.open");
$await('give');
switch ($_GET['how']) {
    case 'close':
    case 'again':
        session_write_close();
        break;
    case 'abort':
        session_abort();
        break;
    case 'destroy':
        session_destroy();
        break;
    case 'renew':
        session_regenerate_id(true);
        session_write_close();
        break;
    case 'replace':
        session_regenerate_id(false);
        session_write_close();
        break;
    case 'finish':
        fastcgi_finish_request();
        touch("$mark.finished");
        $await('close');
        session_write_close();
        break;
}
touch("$mark.closed");
$await('go');
if ($_GET['how'] === 'again') {
    session_start();
    $_SESSION['count']++;
    touch("$mark.again");
    $await('end');
}
touch("$mark.ended");
