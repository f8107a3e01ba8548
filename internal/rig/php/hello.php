<?php
// The cheapest page: no session.
echo "hello\n";
