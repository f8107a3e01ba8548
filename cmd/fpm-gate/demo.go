package main

import "github.com/spf13/cobra"

func demoCommand() *cobra.Command {
	return &cobra.Command{Use: "demo", Short: "Show the problem and the gate side by side, on real servers", Args: noArgs}
}
