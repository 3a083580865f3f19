"""What deploys the project: deploy/kubernetes/ at the root of the repository."""
