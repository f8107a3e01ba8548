<?php
// redirect.php?to=PATH: a redirect.
header('Location: ' . ($_GET['to'] ?? '/'));
