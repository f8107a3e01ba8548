<?php
// export.php?mark=M&how=HOW: opens its session, counts in it, gives it back and
// makes the file marks/M.closed; then it works on until marks/M.go is there, and
// makes marks/M.ended. HOW is close (session_write_close), abort, read
// (read_and_close), destroy, renew (a new id in place of the old one, which is
// closed too), again (close, and once more when it has worked), finish
// (fastcgi_finish_request, and the session stays open), or never: it starts none.
ignore_user_abort(true);
$how = $_GET['how'];
$mark = __DIR__ . '/marks/' . basename($_GET['mark']);
if ($how !== 'never') {
    session_start(['read_and_close' => $how === 'read']);
    $_SESSION['count'] = ($_SESSION['count'] ?? 0) + 1;
}
header('Content-Type: text/plain');
echo "export\n";
switch ($how) {
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
    case 'finish':
        fastcgi_finish_request();
        break;
}
touch("$mark.closed");
for ($i = 0; $i < 30000 && !file_exists("$mark.go"); $i++) {
    usleep(2000);
    clearstatcache();
}
if ($how === 'again') {
    session_start();
    $_SESSION['count']++;
}
touch("$mark.ended");
