<?php
// nosession.php?ms=N: works for N ms, and starts no session though a cookie came.
usleep(1000 * (int) ($_GET['ms'] ?? 0));
echo "no session\n";
