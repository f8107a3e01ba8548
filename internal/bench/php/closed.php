<?php
// closed.php?ms=N: works on its session for N ms, closes it, and works on for
// 60 ms. It prints when it got the session and when it closed it, in
// nanoseconds of the clock that all processes of the host share.
session_start();
$entered = hrtime(true);
usleep(1000 * (int) ($_GET['ms'] ?? 0));
$_SESSION['count'] = ($_SESSION['count'] ?? 0) + 1;
session_write_close();
$closed = hrtime(true);
usleep(60000);
header('Content-Type: text/plain');
echo $entered, ' ', $closed, "\n";
