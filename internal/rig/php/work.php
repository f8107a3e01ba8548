<?php
// work.php?ms=N: adds one to the session's counter and works on it for N ms.
// Two requests of a session that overlap without a lock lose an update.
session_start();
$count = ($_SESSION['count'] ?? 0) + 1;
usleep(1000 * (int) ($_GET['ms'] ?? 0));
$_SESSION['count'] = $count;
header('Content-Type: text/plain');
echo $count, "\n";
