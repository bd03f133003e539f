"""The search finds what it should, the same in any company, and keeps it when it is interrupted."""
