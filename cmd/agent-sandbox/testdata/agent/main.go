// Agent is what runs in images that have nothing else: a static program with the few commands that the tests need.
package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"time"
)

func main() {
	if err := command(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "agent:", err)
		os.Exit(1)
	}
}

func command(args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("no command")
	}
	switch args[0] {
	case "id":
		fmt.Println(os.Getuid(), os.Getgid())
	case "cat":
		_, err := io.Copy(os.Stdout, os.Stdin)
		return err
	case "ls":
		entries, err := os.ReadDir(args[1])
		for _, e := range entries {
			fmt.Println(e.Name())
		}
		return err
	case "read":
		b, err := os.ReadFile(args[1])
		_, _ = os.Stdout.Write(b)
		return err
	case "write":
		return os.WriteFile(args[1], []byte(args[2]), 0o644)
	case "exit":
		code, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		os.Exit(code)
	case "wait":
		fmt.Println("ready")
		time.Sleep(time.Hour)
	default:
		return fmt.Errorf("unknown command %q", args[0])
	}
	return nil
}
