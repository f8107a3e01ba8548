<?php
// visit.php?n=N&us=U: works for U microseconds and greets visitor N.
usleep((int) $_GET['us']);
echo "visitor {$_GET['n']}\n";
