<?php
// handoff.php?ms=N: works on its session for N ms. It prints whether it got the
// session, and how many nanoseconds the work took.
$got = @session_start();
$begin = hrtime(true);
usleep(1000 * (int) ($_GET['ms'] ?? 0));
$_SESSION['count'] = ($_SESSION['count'] ?? 0) + 1;
$worked = hrtime(true) - $begin;
header('Content-Type: text/plain');
echo (int) $got, ' ', $worked, "\n";
