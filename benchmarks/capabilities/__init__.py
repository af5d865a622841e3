"""What an agent can do: experiments that each test one ability at growing difficulty."""
