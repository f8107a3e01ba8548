<?php
// busy.php?mark=M&ms=N: adds a line "begin" to the file marks/M, works for N ms,
// and adds a line "end".
$mark = __DIR__ . '/marks/' . basename($_GET['mark']);
file_put_contents($mark, "begin\n", FILE_APPEND | LOCK_EX);
usleep(1000 * (int) ($_GET['ms'] ?? 0));
file_put_contents($mark, "end\n", FILE_APPEND | LOCK_EX);
