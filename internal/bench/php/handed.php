<?php
// handed.php?ms=N: works on its session for N ms. It prints whether it got the
// session, and when the work began and ended, in nanoseconds of the host's clock.
$got = @session_start();
$begin = hrtime(true);
usleep(1000 * (int) ($_GET['ms'] ?? 0));
$_SESSION['count'] = ($_SESSION['count'] ?? 0) + 1;
$end = hrtime(true);
header('Content-Type: text/plain');
echo (int) $got, ' ', $begin, ' ', $end, "\n";
