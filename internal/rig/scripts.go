package rig

import (
	"embed"
	"os"
)

// scripts are the scripts of the rig's PHP-FPM pools; a comment at the top of each says what it is for.
//
//go:embed php
var scripts embed.FS

func writeScripts(docRoot string) error {
	if err := os.Mkdir(docRoot, 0o755); err != nil {
		return err
	}
	files, err := scripts.ReadDir("php")
	if err != nil {
		return err
	}
	for _, f := range files {
		text, err := scripts.ReadFile("php/" + f.Name())
		if err != nil {
			return err
		}
		if err := os.WriteFile(docRoot+"/"+f.Name(), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}
