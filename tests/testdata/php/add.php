<?php
// add.php?mark=M&ms=N&more=K: adds one to the session's counter, after working on it for N to N+K ms, and says the
// count. When the session is written it adds a line to the file marks/M: so many updates were made, whatever became
// of the answers.
session_start();
$count = ($_SESSION['count'] ?? 0) + 1;
usleep(1000 * (int) $_GET['ms'] + random_int(0, 1000 * (int) ($_GET['more'] ?? 0)));
$_SESSION['count'] = $count;
session_write_close();
file_put_contents(__DIR__ . '/marks/' . basename($_GET['mark']), "$count\n", FILE_APPEND);
header('Content-Type: text/plain');
echo $count;
