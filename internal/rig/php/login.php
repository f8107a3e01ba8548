<?php
// login.php?ms=N: gives the session a new id, then works on it for N ms; prints
// the old id and the new one.
session_start();
$old = session_id();
session_regenerate_id();
header('Content-Type: text/plain');
if (isset($_GET['flush'])) { // the new id reaches the browser before the script ends
    while (ob_get_level() > 0) {
        ob_end_flush();
    }
}
echo $old, ' ', session_id(), "\n";
flush();
usleep(1000 * (int) ($_GET['ms'] ?? 0));
$_SESSION['count'] = ($_SESSION['count'] ?? 0) + 1;
