<?php
// renew.php?mark=M: makes the file marks/M.started, gives the session another id once marks/M.go is there, and goes on for a
// moment. With delete=1 it destroys the old session.
session_start();
$mark = __DIR__ . '/marks/' . basename($_GET['mark']);
touch("$mark.started");
for ($i = 0; $i < 30000 && !file_exists("$mark.go"); $i++) {
    usleep(2000);
    clearstatcache();
}
session_regenerate_id((bool) ($_GET['delete'] ?? false));
usleep(20000);
echo isset($_SESSION['user']) ? 'in' : 'out';
