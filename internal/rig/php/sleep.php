<?php
// sleep.php?s=N: a script that hangs for N seconds, without a session.
sleep((int) ($_GET['s'] ?? 1));
echo "slept\n";
