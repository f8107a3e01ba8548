<?php
// Prints the session's counter, and leaves it alone.
session_start(['read_and_close' => true]);
header('Content-Type: text/plain');
echo $_SESSION['count'] ?? 0, "\n";
