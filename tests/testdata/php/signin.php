<?php
// Signs the visitor in, and tells the session id.
session_start();
$_SESSION['user'] = 'u';
echo session_id();
