<?php
// relogin.php?mark=M: gives the session a new id and tells it the browser, then
// goes on like wait.php.
session_start();
session_regenerate_id();
header('Content-Type: text/plain');
while (ob_get_level() > 0) {
    ob_end_flush();
}
echo session_id(), "\n";
flush();
$mark = __DIR__ . '/marks/' . basename($_GET['mark']);
touch("$mark.started");
for ($i = 0; $i < 30000 && !file_exists("$mark.go"); $i++) {
    usleep(2000);
    clearstatcache();
}
touch("$mark.ended");
