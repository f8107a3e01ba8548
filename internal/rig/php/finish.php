<?php
// finish.php?ms=N: answers, ends the request by fastcgi_finish_request(), and
// works on its session for N ms more.
session_start();
$count = ($_SESSION['count'] ?? 0) + 1;
header('Content-Type: text/plain');
echo $count, "\n";
fastcgi_finish_request();
usleep(1000 * (int) ($_GET['ms'] ?? 500));
$_SESSION['count'] = $count;
