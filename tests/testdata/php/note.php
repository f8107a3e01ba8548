<?php
// note.php?mark=M&say=TEXT: adds TEXT as a line to the file marks/M, and says
// what it has said: who ran when is the order of the lines.
file_put_contents(__DIR__ . '/marks/' . basename($_GET['mark']), $_GET['say'] . "\n", FILE_APPEND | LOCK_EX);
header('Content-Type: text/plain');
echo $_GET['say'], "\n";
