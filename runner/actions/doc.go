// Package actions speaks the GitHub Actions runtime: what a step is told about its job, its inputs, workflow commands,
// outputs and job summary, the job's identity, and the artifact service. Everything that an agent wrote or named is
// escaped here before the runner or a browser sees it. The package runs no task and decides nothing about a policy.
package actions
